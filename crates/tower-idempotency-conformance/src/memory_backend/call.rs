//! The calls that a process sends to the database, and the faults that can happen to them on the way.

/// The kind of a call to a backend, to say which call shall fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`Backend::get`](tower_idempotency_shared::Backend::get).
    Get,
    /// [`Backend::put`](tower_idempotency_shared::Backend::put).
    Put,
    /// [`Backend::sessions`](tower_idempotency_shared::Backend::sessions).
    Sessions,
    /// [`Backend::list`](tower_idempotency_shared::Backend::list).
    List,
    /// [`Backend::delete_expired`](tower_idempotency_shared::Backend::delete_expired).
    DeleteExpired,
    /// [`Backend::guarantee`](tower_idempotency_shared::Backend::guarantee).
    Guarantee,
}

/// The fault that happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It is refused and not done: [`BackendError::Nothing`](tower_idempotency_shared::BackendError::Nothing).
    Refuse,
    /// It never arrives: [`BackendError::Uncertain`](tower_idempotency_shared::BackendError::Uncertain).
    LoseCall,
    /// It is done: [`BackendError::Uncertain`](tower_idempotency_shared::BackendError::Uncertain).
    LoseAnswer,
    /// It is on its way when it is given up, and done at the next [`deliver_late`](super::MemoryBackend::deliver_late):
    /// [`BackendError::Uncertain`](tower_idempotency_shared::BackendError::Uncertain).
    Late,
    /// It is done and answered, and done once more at the next [`deliver_late`](super::MemoryBackend::deliver_late).
    Double,
}

/// The numbers of calls that a process has sent, those that failed included: its round trips.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls of `get`.
    pub gets: u64,
    /// Calls of `put`.
    pub puts: u64,
    /// Calls of `sessions`.
    pub sessions: u64,
    /// Calls of `list`.
    pub lists: u64,
    /// Calls of `delete_expired`.
    pub sweeps: u64,
    /// Writes in all those puts, done or not.
    pub writes: u64,
    /// Bytes of state in all those writes.
    pub bytes: u64,
}
