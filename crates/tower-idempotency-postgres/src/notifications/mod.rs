//! Send and receive notifications of which rows were written.

pub(super) mod listen;
pub(super) mod notify;
