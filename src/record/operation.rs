//! An operation: what names a request, and what its record has of it.

use super::state::Origin;
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;

/// An operation, as a request names it or as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The digest of scope and key: the name of the slot and of the record.
    pub id: RecordId,
    /// The digest of the request. A record answers only a request that has the same one.
    pub fingerprint: Fingerprint,
    /// The origin of the operation.
    pub origin: Origin,
}

impl Operation {
    /// Returns the operation of this id, as its record has it.
    #[must_use]
    pub fn of<O>(id: RecordId, record: &super::Record<O>) -> Self {
        Self { id, fingerprint: record.fingerprint, origin: record.origin.clone() }
    }
}
