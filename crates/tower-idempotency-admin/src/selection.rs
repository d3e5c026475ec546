//! Which operations are listed, as a URL says it.

use std::time::Duration;

use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::Cause;
use tower_idempotency::operations::{Cursor, Filter, StateKind};

use crate::fields::{Fields, link};
use crate::text::{digest, hex, rfc3339};

/// The most operations that one form settles.
pub(crate) const MAX_ROWS: usize = 1_000;
/// The most calls to the store for one page: each looks at 10,000 records at most, and may find none.
pub(crate) const MAX_CALLS: usize = 10;

/// A filter, and the place from which on the operations are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    pub(crate) state: Option<StateKind>,
    pub(crate) older_than: Option<Duration>,
    pub(crate) cause: Option<Cause>,
    pub(crate) label: Option<String>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) before: Option<Timestamp>,
    pub(crate) status: Option<u16>,
    pub(crate) scope: Option<[u8; 32]>,
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
            digest(scope).ok_or_else(|| "`scope` must be the 64 hex digits of a scope's digest".to_owned())
        });
        let after = fields
            .get("after")
            .map(|after| after.parse().map_err(|_| "`after` must be what the page before has as its next".to_owned()));
        Ok(Self {
            state: state.transpose()?,
            cause: cause.transpose()?,
            label: fields.get("label").map(str::to_owned),
            since: time(fields, "since")?,
            before: time(fields, "before")?,
            older_than: older_than.transpose()?,
            status: status.transpose()?,
            scope: scope.transpose()?,
            after: after.transpose()?,
        })
    }

    pub(crate) fn filter(&self) -> Filter {
        let mut filter = Filter::all();
        if let Some(state) = self.state {
            filter = filter.in_state(state);
        }
        if let Some(cause) = self.cause {
            filter = filter.caused_by(cause);
        }
        if let Some(label) = &self.label {
            filter = filter.labelled(label);
        }
        if let Some(since) = self.since {
            filter = filter.since(since);
        }
        if let Some(before) = self.before {
            filter = filter.before(before);
        }
        if let Some(age) = self.older_than {
            filter = filter.older_than(age);
        }
        if let Some(status) = self.status {
            filter = filter.answered_with(status);
        }
        if let Some(scope) = self.scope {
            filter = filter.of_scope(scope);
        }
        filter
    }

    /// Returns the link to this selection, from its first operation on, or from the one after `after`.
    pub(crate) fn link(&self, after: Option<&Cursor>) -> String {
        let fields = [
            ("state", Some(self.state.map_or_else(|| "any".to_owned(), |state| state.to_string()))),
            ("cause", self.cause.map(|cause| cause.to_string())),
            ("label", self.label.clone()),
            ("since", self.since.and_then(rfc3339)),
            ("before", self.before.and_then(rfc3339)),
            ("older_than", self.older_than.map(|age| humantime::format_duration(age).to_string())),
            ("status", self.status.map(|status| status.to_string())),
            ("scope", self.scope.map(|scope| hex(&scope))),
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
