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
        let cause = fields
            .get("cause")
            .filter(|cause| *cause != "any")
            .map(|cause| cause.parse::<Cause>().map_err(|error| format!("`cause` is wrong: {error}, or any")));
        let states = "one of running, interrupted, completed, consumed, damaged, or any";
        let state = |text: &str| if text == "any" { Some(None) } else { text.parse().ok().map(Some) };
        let older_than = "a time such as 10m, 2h or 30days";
        let status = |text: &str| text.parse().ok().filter(|status| (100..=999).contains(status));
        // A digest of a scope has the form of a record id.
        let scope = |text: &str| text.parse::<RecordId>().ok().map(|digest| *digest.as_bytes());
        let time = |text: &str| humantime::parse_rfc3339_weak(text).ok().map(Timestamp::from);
        let times = "a time of UTC such as 2026-11-22T10:03:07Z";
        let filter = Filter {
            state: field(fields, "state", states, state)?.flatten(),
            cause: cause.transpose()?,
            label: fields.get("label").map(str::to_owned),
            since: field(fields, "since", times, time)?,
            before: field(fields, "before", times, time)?,
            older_than: field(fields, "older_than", older_than, |text| humantime::parse_duration(text).ok())?,
            status: field(fields, "status", "an HTTP status, such as 504", status)?,
            scope: field(fields, "scope", "the 64 hex digits of a scope's digest", scope)?,
        };
        let after = field(fields, "after", "what the page before has as its next", |text| text.parse().ok())?;
        Ok(Self { filter, after })
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

/// Reads the field of this name, if it has a value.
fn field<T>(
    fields: &Fields,
    name: &str,
    expected: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    let value = fields.get(name).map(|text| read(text).ok_or_else(|| format!("`{name}` must be {expected}")));
    value.transpose()
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
