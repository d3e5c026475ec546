//! The figures of the whole loop.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use testkit::control;

/// The figures of all lanes together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) under_load: Count,
    pub(crate) idle: Count,
    pub(crate) opening: Count,
    /// Of those, the kills before the store was open.
    pub(crate) before_open: Count,
    /// Of the kills under load, those while a key that was interrupted before was retried.
    pub(crate) retrying: Count,
    /// The kills, under load or at a start, before every interrupted operation was reconciled.
    pub(crate) reconciling: Count,
    pub(crate) keys: Count,
    pub(crate) acknowledged: Count,
    /// The requests that were under way at a kill.
    pub(crate) unfinished: Count,
    pub(crate) failed_opens: Count,
    pub(crate) stuck: Count,
    violations: Mutex<Vec<String>>,
    /// The number of lanes that could reconcile.
    pub(crate) reconcilers: Count,
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicUsize);

impl Count {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count, SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Counts {
    pub(crate) fn violation(&self, line: String) {
        self.violations.lock().unwrap().push(line);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    /// Returns whether a control has seen its violation, and can end.
    pub(crate) fn control_has_seen(&self) -> bool {
        control::is_control() && !self.violations.lock().unwrap().is_empty()
    }

    pub(crate) fn kills(&self) -> usize {
        self.under_load.get() + self.idle.get() + self.opening.get()
    }

    /// Asserts that each event that the figures claim took place.
    pub(crate) fn assert_reached(&self) {
        assert!(self.acknowledged.get() > 0 && self.unfinished.get() > 0, "nothing was under way at the kills: {self}");
        assert!(self.before_open.get() > 0, "no store was killed while it was opened: {self}");
        assert!(self.retrying.get() > 0, "no retry was under way at a kill: {self}");
        let reconciled = self.reconcilers.get() == 0 || self.reconciling.get() > 0;
        assert!(reconciled, "nothing was reconciled at a kill: {self}");
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kills, load, idle] = [self.kills(), self.under_load.get(), self.idle.get()];
        let [starting, opening, again] = [self.opening.get(), self.before_open.get(), self.retrying.get()];
        let reconciling = self.reconciling.get();
        write!(
            f,
            "kills {kills} (under load {load}, at a start {starting}, idle {idle}; {opening} before the store was "
        )?;
        write!(f, "open, {again} while what was interrupted was retried, {reconciling} while it was reconciled), ")?;
        let (keys, acknowledged, unfinished) = (self.keys.get(), self.acknowledged.get(), self.unfinished.get());
        write!(f, "keys {keys}, acknowledged {acknowledged}, unfinished {unfinished}, ")?;
        write!(f, "failed opens {}, keys that stay refused {}", self.failed_opens.get(), self.stuck.get())
    }
}
