//! An observer that keeps what it was notified of.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tower_idempotency::Observer;
use tower_idempotency::engine::Cause;
use tower_idempotency::observer::{LeaseChange, RunEnd, SettledBy};

/// The events so far, each as its method's name and its values, and with the durations in seconds.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    /// Returns the events since the last call, in their order.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, event: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

impl Observer for Events {
    fn ran(&self, end: RunEnd, took: Duration) {
        self.note(format!("ran {} {}", end.name(), took.as_secs()));
    }

    fn replayed(&self, took: Duration) {
        self.note(format!("replayed {}", took.as_secs()));
    }

    fn rejected(&self, kind: &'static str) {
        self.note(format!("rejected {kind}"));
    }

    fn waited(&self, took: Duration) {
        self.note(format!("waited {}", took.as_secs()));
    }

    fn claimed(&self, took: Duration) {
        self.note(format!("claimed {}", took.as_secs()));
    }

    fn recorded(&self, took: Duration) {
        self.note(format!("recorded {}", took.as_secs()));
    }

    fn unsaved(&self) {
        self.note("unsaved".to_owned());
    }

    fn interrupted(&self, cause: Cause) {
        self.note(format!("interrupted {cause}"));
    }

    fn settled(&self, by: SettledBy) {
        self.note(format!("settled {}", by.name()));
    }

    fn disputed(&self) {
        self.note("disputed".to_owned());
    }

    fn swept(&self, records: usize) {
        self.note(format!("swept {records}"));
    }

    fn lease(&self, change: LeaseChange) {
        self.note(format!("lease {}", change.name()));
    }

    fn breaker(&self, is_open: bool) {
        self.note(format!("breaker {}", if is_open { "open" } else { "closed" }));
    }
}
