//! What happens over a store, as it happens: for metrics, alerts and audits of your own.

use std::fmt;
use std::time::Duration;

use crate::named::named;
use crate::record::Cause;

/// Defines the trait, and how a pair of observers passes each event on: first to the one, then to the other. If the
/// first panics, the other does not learn of that event.
macro_rules! observer {
    (
        $(#[$about:meta])*
        pub trait Observer: Send + Sync + 'static {
            $($(#[$event_about:meta])* fn $event:ident(&self $(, $argument:ident: $type:ty)*) {})*
        }
    ) => {
        $(#[$about])*
        pub trait Observer: Send + Sync + 'static {
            $($(#[$event_about])* fn $event(&self $(, $argument: $type)*) {})*
        }

        impl<A: Observer, B: Observer> Observer for (A, B) {
            $(fn $event(&self $(, $argument: $type)*) {
                self.0.$event($($argument),*);
                self.1.$event($($argument),*);
            })*
        }
    };
}

observer! {
    /// Learns of what happens over a store in this process, to all layers and consumers. Give it to the store with
    /// [`Store::observe`](crate::store::Store::observe). Each method is one event and does nothing by default.
    ///
    /// Every argument is a duration, a number, or one of few values, which can be labels of metrics. None says which
    /// operation, key, path, scope or account an event is about. Spans and events of `tracing` name operations.
    ///
    /// A method is called where the event happens: on the threads of the runtime, and for an embedded store on its
    /// writer thread. **It must return at once and must not block**: requests wait for it. If it panics, the panic is
    /// caught and logged, at most once a minute, and the request goes on. The store owns its observer: one that holds a
    /// handle of the store keeps it open until it is [closed](crate::store::Store::close). A store has one observer; a
    /// pair of observers, `(a, b)`, is one that passes each event on to both.
    #[allow(unused_variables, reason = "the names of arguments are documentation")]
    pub trait Observer: Send + Sync + 'static {
        /// A handler has ended, or was stopped. `took` is the time since it was called. What is recorded of the run may
        /// be another end: that of a transaction which the handler has committed, or of the process that took the
        /// operation over. A run whose task is dropped has no such event.
        fn ran(&self, end: RunEnd, took: Duration) {}

        /// A request was answered with the outcome of an earlier one. `took` is the time since the engine was asked,
        /// waits included.
        fn replayed(&self, took: Duration) {}

        /// A request was rejected. `kind` is one of the names in [`problem`](crate::problem), such as `in-flight`, or
        /// `custom` for a rejection of the application's own.
        fn rejected(&self, kind: &'static str) {}

        /// A request has waited this long for the run of another one. Requests that may not wait, and those with
        /// another fingerprint, have no such event.
        fn waited(&self, took: Duration) {}

        /// The store has granted a claim in time, and the handler is called. `took` is the time since the engine was
        /// asked, the look-up of the key included; after a question to the reconciler, since its answer.
        fn claimed(&self, took: Duration) {}

        /// The store has recorded the end of a run. `took` is the time until its answer. An end that is recorded in a
        /// transaction of the application's, or only at a later try, has no such event.
        fn recorded(&self, took: Duration) {}

        /// The end of a run could not be recorded at once, and its answer was given all the same.
        fn unsaved(&self) {}

        /// It is unknown whether a run took effect, for this reason: one of this process, or one of an earlier process
        /// that an embedded store has found when it was opened. [`observe`](crate::store::Store::observe) calls it for
        /// each of those.
        fn interrupted(&self, cause: Cause) {}

        /// An interrupted operation was settled, and the store has answered in time.
        fn settled(&self, by: SettledBy) {}

        /// An outcome came after its operation had been taken over by another process, or settled.
        fn disputed(&self) {}

        /// Expired records were deleted; of a shared store, also its expired rows of other kinds.
        fn swept(&self, records: usize) {}

        /// The lease of this process over a shared store has changed.
        fn lease(&self, change: LeaseChange) {}

        /// The circuit breaker of a shared store has opened or closed. While it is open, new keys are refused, but for
        /// one claim a second. Two changes at nearly the same time may come in either order.
        fn breaker(&self, is_open: bool) {}
    }
}

named! {
    /// How a handler ended.
    RunEnd {
        /// Its answer is the outcome.
        Completed: "completed",
        /// It took effect, and its answer is not recorded: it is a stream, or too long or too slow.
        NotReplayable: "not-replayable",
        /// It took no effect: the key is free.
        Released: "released",
        /// Its answer or its error leaves it unknown whether it took effect.
        Unknown: "unknown",
        /// It panicked.
        Panicked: "panicked",
        /// It took longer than `max_run`.
        TooLong: "too-long",
        /// It was dropped, because another process may run the operation again.
        Stopped: "stopped",
    }

    /// The one who settled an interrupted operation.
    SettledBy {
        /// An operator, through [`Operator::apply`](crate::operations::Operator::apply).
        Operator: "operator",
        /// The application's reconciler.
        Reconciler: "reconciler",
    }

    /// A change of this process's lease over a shared store.
    LeaseChange {
        /// It was renewed.
        Renewed: "renewed",
        /// It was lost: another process has taken this one for dead.
        Lost: "lost",
    }
}

/// The store has an observer already. A pair of observers is one, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store has an observer already; to have two, observe with a pair: `store.observe((one, other))`")]
#[non_exhaustive]
pub struct AlreadyObserved;

/// `Debug` shows only that there is one.
impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
