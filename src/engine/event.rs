//! The one event that a request leaves in the log if the layer runs, answers or rejects it.

use std::time::Duration;

use tracing::{Level, Span};

use super::engine::{Engine, millis};
use super::policy::Levels;
use super::verdict::name::{RAN, REPLAYED};
use crate::fingerprint::RequestPart;
use crate::key::RecordId;
use crate::record::Origin;
use crate::slots::Attempt;
use crate::store::Store;

/// Logs an event at a level that is known at run time. `tracing` needs a macro call for each level.
macro_rules! event_at {
    ($level:expr, parent: $span:expr, $($fields:tt)*) => {
        match $level {
            Level::ERROR => tracing::error!(target: "tower_idempotency", parent: $span, $($fields)*),
            Level::WARN => tracing::warn!(target: "tower_idempotency", parent: $span, $($fields)*),
            Level::INFO => tracing::info!(target: "tower_idempotency", parent: $span, $($fields)*),
            Level::DEBUG => tracing::debug!(target: "tower_idempotency", parent: $span, $($fields)*),
            Level::TRACE => tracing::trace!(target: "tower_idempotency", parent: $span, $($fields)*),
        }
    };
}

/// What is known of a request, apart from its outcome.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts<'a> {
    /// `None` without a valid key.
    pub(crate) id: Option<&'a RecordId>,
    /// The attempt that has answered the request, or leaves its outcome unknown.
    pub(crate) attempt: Option<&'a Attempt>,
    /// The time that the request has waited for the run of another one.
    pub(crate) waited: Option<Duration>,
    /// The time that its own handler took; `None` if it called none.
    pub(crate) ran: Option<Duration>,
    /// The part in which it differs from the request that its key was used for.
    pub(crate) differs: Option<RequestPart>,
}

impl Facts<'_> {
    fn record_id(&self) -> Option<String> {
        self.id.map(RecordId::short)
    }

    fn number(&self) -> Option<u32> {
        self.attempt.map(|attempt| attempt.number).filter(|number| *number > 0)
    }

    fn origin(&self) -> Option<&Origin> {
        self.attempt.map(|attempt| &attempt.origin)
    }

    fn label(&self) -> Option<&str> {
        self.origin()?.label()
    }
}

impl<St: Store> Engine<St> {
    /// Names the outcome of a request in its span, and logs its event.
    pub(crate) fn report(&self, span: &Span, outcome: &'static str, facts: Facts<'_>) {
        if !span.is_disabled() {
            span.record("outcome", outcome);
        }
        let Levels { ran, replayed, refused } = self.policy.levels;
        match outcome {
            RAN => {
                event_at!(
                    ran, parent: span, record_id = facts.record_id(), attempt = facts.number(), label = facts.label(),
                    ran_ms = facts.ran.map(millis), store = self.store.name(), "{outcome}"
                );
            }
            REPLAYED => {
                event_at!(
                    replayed, parent: span, record_id = facts.record_id(), attempt = facts.number(), label = facts.label(),
                    waited_ms = facts.waited.map(millis), store = self.store.name(),
                    first_trace_id = facts.origin().and_then(Origin::trace_id), "{outcome}"
                );
            }
            _ => {
                // A client can be refused as often as it likes. `take_due` returns a number at most once a minute, for
                // the event at the level that was set. `Level` grows with verbosity, so the others are at DEBUG, or at
                // TRACE if set.
                let count = self.telemetry().refused.of(outcome).take_due();
                let level = if count.is_some() { refused } else { refused.max(Level::DEBUG) };
                event_at!(
                    level, parent: span, record_id = facts.record_id(), attempt = facts.number(), label = facts.label(),
                    waited_ms = facts.waited.map(millis), ran_ms = facts.ran.map(millis), store = self.store.name(), count,
                    differs = facts.differs.map(RequestPart::name), "refused: {outcome}"
                );
            }
        }
    }
}
