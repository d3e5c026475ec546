//! Stores that several processes share: one adapter over any database that can compare and set.

// What is where:
// - `backend.rs`: what a database has to do.
// - `store.rs`: the store that applications open, and its settings.
// - `state.rs`: what its handles share, and its tasks.
// - `step.rs`: one transition: read, decide, compare and set. `read.rs` and `write.rs` are its ways in and out;
//   `takeover.rs` has what comes with taking an operation over.
// - `run_record.rs`: what a database has to do so that a transaction of the application writes a record;
//   `transaction.rs`: how the store prepares it, and finds out whether it was written.
// - `restore.rs`: what a failover has lost and this process knows.
// - `listing.rs`: what operators have to see to.
// - `rows.rs`: rows as records.
// - `session.rs`: whether this process is alive. `watch.rs`: whether others are.
// - `clocks.rs`: by which clocks rows are judged and stamped.
// - `news.rs`: who is told that a row has changed.
// - `damaged.rs`: which completed records this process can't read.
// - `driven.rs`: a future of the store's own, which its caller drives.
// - `puts.rs`, `gets.rs`: writes and reads on their way to the database. `queue.rs`: which writes go next, and how many
//   at once; `resend.rs`: large writes that are sent again; `large.rs`: rows that take long; `known.rs`: what is known
//   of a row.
// - `ends.rs`: ends of runs on their way.
// - `errors.rs`: what an error of the database means for whoever asked.
// - `reach.rs`: whether the database can be reached.
// - `judge.rs`: the same as functions, for a database that leaves the deciding to them.

mod backend;
mod clocks;
mod damaged;
mod driven;
mod ends;
mod errors;
mod gets;
mod judge;
mod known;
mod large;
mod listing;
mod news;
mod puts;
mod queue;
mod reach;
mod read;
mod resend;
mod restore;
mod rows;
mod run_record;
mod session;
mod state;
mod step;
mod store;
mod takeover;
#[cfg(test)]
mod tests;
mod transaction;
mod watch;
mod write;

pub use backend::{
    Answer, Backend, BackendError, Clocks, Expect, GRACE, Guarantee, Kind, NewExpiry, NewFence, Row, ServerId, Stamp,
    Token, Write,
};
/// The stream that [`Backend::changes`] returns.
pub use futures_util::stream::BoxStream;
pub use judge::Moment;
pub use listing::Disputed;
pub use run_record::{RecordInTransaction, RunRecord};
pub use store::{Shared, SharedBuilder};
#[doc(hidden)]
pub use transaction::{Settled, Settling};

use crate::key::RecordId;

/// A token of the operating system's randomness.
fn random_token() -> Token {
    Token(random())
}

/// An id that no other process draws.
fn random_id() -> RecordId {
    RecordId::from_bytes(random())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Without it nobody can tell his own write from another's.
        panic!("the operating system gives no random bytes: {error}");
    }
    bytes
}
