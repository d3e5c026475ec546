//! The truth about the effects: an operator finds it out, and the application answers with it when it is asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tower_idempotency::RecordId;

use super::key;
use super::notes::Note;

/// The operations of records, and whether the effect of each took place.
#[derive(Debug, Clone, Default)]
pub struct Truth(Arc<Mutex<HashMap<RecordId, (u64, bool)>>>);

impl Truth {
    /// Learns from a note.
    pub fn hears(&self, note: &Note) {
        match note {
            Note::Began(key) => drop(self.all().entry(key::id(*key)).or_insert((*key, false))),
            Note::Effect(key) => self.learns(*key, true),
            _ => {}
        }
    }

    pub fn learns(&self, key: u64, took_place: bool) {
        self.all().insert(key::id(key), (key, took_place));
    }

    /// The operation of a record, and whether its effect took place, if that is known.
    pub fn of(&self, id: RecordId) -> Option<(u64, bool)> {
        self.all().get(&id).copied()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<RecordId, (u64, bool)>> {
        self.0.lock().expect("no holder panics")
    }
}
