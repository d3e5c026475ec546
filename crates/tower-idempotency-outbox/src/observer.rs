//! What happens to the calls of an outbox, as it happens.

use crate::{OpenCalls, State};

/// Learns how the calls of a relay go: for metrics and alerts. Give it to the relay with
/// [`Relay::observe`](crate::Relay::observe). Each method is one event and does nothing by default.
///
/// A destination is a scheme, a host and a port. No argument says which key, path or account an event is about. Each
/// method is called in a task of the relay: **it must return at once**. If it panics, the panic is caught and logged.
///
/// For the attempts of each try, give the relay a [layer](crate::Relay::layer) with an observer of its own.
#[allow(unused_variables, reason = "the names of arguments are documentation")]
pub trait Observer: Send + Sync + 'static {
    /// The result of a try is written, after which the call is in this state: [`State::Waiting`] if another try
    /// follows. A call that is given up or set aside without a try has this event, too; one that an operator changes
    /// has not.
    fn tried(&self, destination: &str, state: State) {}

    /// The calls that have not ended, as [`Outbox::open_calls`](crate::Outbox::open_calls) returns them: when the relay
    /// begins, and once a minute. Each relay of an outbox sees all of them.
    fn counted(&self, open: &[OpenCalls]) {}
}
