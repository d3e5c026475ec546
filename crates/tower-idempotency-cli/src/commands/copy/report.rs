//! What a copy says at the end.

use serde_json::json;
use tower_idempotency::RecordId;

use super::compare::{Compared, States};
use super::records::Copied;
use crate::failure::{Ended, Failure};
use crate::screen::Screen;

/// What a copy has done, and what both stores have then.
pub(super) struct CopyReport {
    pub(super) copied: Copied,
    pub(super) compared: Compared,
}

impl CopyReport {
    /// Writes it.
    pub(super) fn end(self, screen: Screen) -> Result<Ended, Failure> {
        let Self { copied, compared } = self;
        let unequal = ids(copied.different.iter().chain(&compared.unequal));
        let is_complete = copied.damaged.is_empty() && unequal.is_empty();
        let mut text = String::new();
        for (id, reason) in &copied.damaged {
            text.push_str(&format!("{id}  can't be read, so the new store refuses its key: {reason}\n"));
        }
        for id in &unequal {
            text.push_str(&format!("{id}  is not the same in the new store, where nothing was overwritten\n"));
        }
        let (read, damaged) = (copied.read(), copied.damaged.len());
        let Copied { copied: written, already, expired, .. } = copied;
        text.push_str(&format!(
            "{read} records were read: {written} were copied, {already} were there already, {expired} expired meanwhile, \
             {damaged} can't be read, {} are not the same\n",
            unequal.len()
        ));
        text.push_str(&format!("the old store has {}\n", words(&compared.from)));
        text.push_str(&format!("the new store has {}\n", words(&compared.to)));
        if compared.others > 0 {
            text.push_str(&format!("{} of them are its own\n", compared.others));
        }
        text.push_str(match is_complete {
            true => "The copy is complete: start the service with the new store, and never again with the old one.",
            false => {
                "The copy is NOT complete: see the records that are named above before a service uses the new store."
            }
        });
        let reasons = copied.damaged.iter().map(|(id, reason)| json!({ "id": id.to_string(), "reason": reason }));
        let value = json!({
            "read": read,
            "copied": written,
            "already_there": already,
            "expired": expired,
            "damaged": reasons.collect::<Vec<_>>(),
            "not_the_same": unequal,
            "from": compared.from,
            "to": compared.to,
            "others": compared.others,
            "complete": is_complete,
        });
        screen.answer(text, &value)?;
        Ok(if is_complete { Ended::Well } else { Ended::Badly })
    }
}

/// Returns the ids, each once, in their order.
fn ids<'a>(ids: impl Iterator<Item = &'a RecordId>) -> Vec<String> {
    let mut ids: Vec<String> = ids.map(ToString::to_string).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn words(states: &States) -> String {
    let all: u64 = states.values().sum();
    let each: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    match each.as_slice() {
        [] => "no records".to_owned(),
        each => format!("{all} records: {}", each.join(", ")),
    }
}
