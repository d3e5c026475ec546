//! The context of a consumer's effect.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use bytes::Bytes;
use serde::Serialize;

use super::context::RunContext;

/// The context of an effect of [`Once`](crate::Once): what [`RunContext`] knows of the run. A store's `complete_in`
/// takes it, to write the effect and the record of its outcome in one transaction.
///
/// `T` is the outcome's type. The record has it as JSON.
pub struct OnceContext<T> {
    pub(super) run: RunContext,
    outcome: PhantomData<fn(T)>,
}

impl<T> OnceContext<T> {
    pub(super) fn new(run: RunContext) -> Self {
        Self { run, outcome: PhantomData }
    }
}

impl<T> Deref for OnceContext<T> {
    type Target = RunContext;

    fn deref(&self) -> &RunContext {
        &self.run
    }
}

impl<T> Clone for OnceContext<T> {
    fn clone(&self) -> Self {
        Self::new(self.run.clone())
    }
}

impl<T> fmt::Debug for OnceContext<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnceContext").field(&self.run).finish()
    }
}

/// Returns an outcome as it is recorded.
pub(super) fn json_of<T: Serialize>(outcome: &T) -> serde_json::Result<Bytes> {
    // The box has no room to spare, which the record would keep alive.
    serde_json::to_vec(outcome).map(|json| json.into_boxed_slice().into())
}

#[cfg(test)]
mod tests {
    use super::json_of;

    // Seeded fault: the buffer into which it was written is kept whole.
    #[test]
    fn a_recorded_outcome_keeps_no_more_memory_than_its_length() {
        let json = json_of(&"x".repeat(1_000)).unwrap();
        let length = json.len();
        assert_eq!(json.try_into_mut().unwrap().capacity(), length);
    }
}
