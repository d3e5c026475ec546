//! Which operations are listed, as a URL says it.

use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::Cause;
use tower_idempotency::operations::{Cursor, Filter};

use crate::fields::{Fields, link};
use crate::text::{hex, rfc3339};

/// The most operations that one form settles.
pub(crate) const MAX_ROWS: usize = 1_000;
/// The most calls to the store for one page: each looks at 10,000 records at most, and may find none.
pub(crate) const MAX_CALLS: usize = 10;

/// A filter, and the place from which on the operations are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    pub(crate) filter: Filter,
    pub(crate) after: Option<Cursor>,
}

impl Selection {
    /// The fields that [`read`](Self::read) reads.
    pub(crate) const FIELDS: [&str; 9] =
        ["state", "cause", "label", "since", "before", "older_than", "status", "scope", "after"];

    /// Reads the fields; the error says which one is wrong.
    pub(crate) fn read(fields: &Fields) -> Result<Self, String> {
        let state = fields.get("state").filter(|state| *state != "any").map(|state| {
            let states = "running, interrupted, completed, consumed, damaged, or any";
            state.parse().map_err(|_| format!("`state` must be one of {states}"))
        });
        let older_than = fields.get("older_than").map(|age| {
            humantime::parse_duration(age)
                .map_err(|_| "`older_than` must be a time such as 10m, 2h or 30days".to_owned())
        });
        let cause = fields
            .get("cause")
            .filter(|cause| *cause != "any")
            .map(|cause| cause.parse::<Cause>().map_err(|error| format!("`cause` is wrong: {error}, or any")));
        let status = fields.get("status").map(|status| {
            let status = status.parse().ok().filter(|status| (100..=999).contains(status));
            status.ok_or_else(|| "`status` must be an HTTP status, such as 504".to_owned())
        });
        let scope = fields.get("scope").map(|scope| {
            // A digest of a scope has the form of a record id.
            let digest = scope.parse::<RecordId>().map(|digest| *digest.as_bytes());
            digest.map_err(|_| "`scope` must be the 64 hex digits of a scope's digest".to_owned())
        });
        let after = fields
            .get("after")
            .map(|after| after.parse().map_err(|_| "`after` must be what the page before has as its next".to_owned()));
        let filter = Filter {
            state: state.transpose()?,
            cause: cause.transpose()?,
            label: fields.get("label").map(str::to_owned),
            since: time(fields, "since")?,
            before: time(fields, "before")?,
            older_than: older_than.transpose()?,
            status: status.transpose()?,
            scope: scope.transpose()?,
        };
        Ok(Self { filter, after: after.transpose()? })
    }

    /// Returns the link to this selection, from its first operation on, or from the one after `after`.
    pub(crate) fn link(&self, after: Option<&Cursor>) -> String {
        let filter = &self.filter;
        let fields = [
            ("state", Some(filter.state.map_or_else(|| "any".to_owned(), |state| state.to_string()))),
            ("cause", filter.cause.map(|cause| cause.to_string())),
            ("label", filter.label.clone()),
            ("since", filter.since.and_then(rfc3339)),
            ("before", filter.before.and_then(rfc3339)),
            ("older_than", filter.older_than.map(|age| humantime::format_duration(age).to_string())),
            ("status", filter.status.map(|status| status.to_string())),
            ("scope", filter.scope.map(|scope| hex(&scope))),
            ("after", after.map(ToString::to_string)),
        ];
        link(fields.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))))
    }
}

/// Reads the field of this name as a time.
fn time(fields: &Fields, name: &str) -> Result<Option<Timestamp>, String> {
    let read = |text: &str| {
        let time = humantime::parse_rfc3339_weak(text);
        time.map(Timestamp::from).map_err(|_| format!("`{name}` must be a time of UTC such as 2026-11-22T10:03:07Z"))
    };
    fields.get(name).map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_named_by_64_hex_digits() {
        let text = "0123456789abcdef".repeat(4);
        let read = |text: &str| Selection::read(&Fields::of([("scope", Some(text.to_owned()))]));
        assert_eq!(read(&text).unwrap().filter.scope.map(|scope| hex(&scope)), Some(text.clone()));
        for wrong in [&text[1..], &text.replace('0', "g"), &text.replace("01", "é"), &format!("{text}0")] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
