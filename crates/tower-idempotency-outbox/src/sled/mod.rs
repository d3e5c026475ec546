//! An outbox in a tree of a [`SledStore`](tower_idempotency::SledStore).

// `outbox.rs` has the transactions, `tree.rs` what they write, `head.rs` an entry without its call and its answer, and
// `clock.rs` what time it is.

mod clock;
mod head;
mod outbox;
mod tree;

pub use outbox::{PutError, SledOutbox};
