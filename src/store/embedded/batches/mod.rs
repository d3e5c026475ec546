//! One batch of the writer, or of an opening, which has no writer yet.
//!
//! - `batch.rs`: decides each command over the results of those before it, and answers once all is durable.
//! - `transaction.rs`: runs a transaction, which writes an effect of the application together with the record of its
//!   outcome.
//! - `sweep.rs`: deletes expired records, between the commands.
//! - `records.rs`: writes and removes the keys that go with a record.
//! - `step.rs`: cuts a batch into steps, each of which is bounded, and writes them.

pub(super) mod batch;
pub(super) mod records;
pub(super) mod step;
pub(super) mod sweep;
pub(super) mod transaction;
