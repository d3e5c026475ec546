//! The ends of runs that are on their way to the database.

use std::sync::Arc;

use ahash::RandomState;
use dashmap::DashMap;
use tower_idempotency::RecordId;

/// The number of ends that are under way, for each operation that has one.
#[derive(Debug, Default)]
pub(crate) struct Ends(DashMap<RecordId, usize, RandomState>);

/// An end that counts as under way until this value is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    ends: Arc<Ends>,
    id: RecordId,
}

impl Ends {
    /// Counts an end of this operation's run until the returned value is dropped. `inner.rs` neither ends the session
    /// nor forgets the run's row before that.
    pub(crate) fn begin(self: &Arc<Self>, id: RecordId) -> UnderWay {
        *self.0.entry(id).or_default() += 1;
        UnderWay { ends: Arc::clone(self), id }
    }

    /// Returns whether an end of this operation's run is under way.
    pub(crate) fn has(&self, id: RecordId) -> bool {
        self.0.contains_key(&id)
    }

    /// Returns whether no end is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.ends.0.remove_if_mut(&self.id, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_has_an_end_under_way_until_the_last_of_several_is_over() {
        let (ends, id) = (Arc::new(Ends::default()), RecordId::from_bytes([1; 32]));
        let (first, second) = (ends.begin(id), ends.begin(id));
        drop(first);
        assert!(ends.has(id) && !ends.is_empty());
        drop(second);
        assert!(!ends.has(id) && ends.is_empty());
    }
}
