//! The protocol: it reads the row of a record, decides on one transition, and writes the row if the row has not changed
//! since.

// - `step.rs`: one transition. `read.rs` reads its row, `write.rs` makes its write, and `rows.rs` reads rows as
//   records, and writes records as rows.
// - `takeover.rs`: whether an operation may be taken over. `disputed.rs`: the outcome of a run that was taken over.
// - `restore.rs`: outcomes that a failover has lost and this process still has.
// - `large.rs`: rows that take long.
// - `transaction.rs`: the record of a run in a transaction of the application.
// - `adopt.rs`: the records of another store.
// - `listing.rs`: the lists of operations. `damaged.rs`: completed records that this process can't read.
// - `ends.rs`: the ends of runs that are on their way to the database.

mod adopt;
mod damaged;
mod disputed;
pub(crate) mod ends;
pub(crate) mod large;
pub(crate) mod listing;
mod read;
mod restore;
pub(crate) mod rows;
pub(crate) mod step;
mod takeover;
pub(crate) mod transaction;
mod write;

use std::sync::{Arc, Weak};

use tower_idempotency::internals::{Cache, Slots};

use self::damaged::Damaged;
use self::ends::Ends;
use self::large::LargeRows;
use super::backend::Backend;
use super::database::Database;
use super::database::clocks::ThreeClocks;
use super::session::Sessions;

/// The records of a database, as the protocol sees them.
#[derive(Debug)]
pub(crate) struct Protocol<B> {
    pub(crate) database: Arc<Database<B>>,
    pub(crate) sessions: Arc<Sessions<B>>,
    /// The store's slots, here for the counters and the limited log lines of their telemetry.
    pub(crate) slots: Arc<Slots>,
    /// Completed records, which do not change before they expire.
    cache: Cache,
    /// The ends of runs that are under way: while there are any, the session goes on.
    pub(crate) ends: Arc<Ends>,
    damaged: Damaged,
    large: LargeRows,
    /// Itself, for tasks that go on without their requesters.
    this: Weak<Self>,
}

impl<B: Backend> Protocol<B> {
    pub(crate) fn new(database: Arc<Database<B>>, sessions: Arc<Sessions<B>>, cache_bytes: u64) -> Arc<Self> {
        let (slots, cache) = (Arc::clone(&database.state.slots), Cache::new(cache_bytes));
        let (ends, damaged, large) = (Arc::default(), Damaged::default(), LargeRows::default());
        Arc::new_cyclic(|this| Self { database, sessions, slots, cache, ends, damaged, large, this: this.clone() })
    }

    fn clocks(&self) -> &ThreeClocks {
        self.database.clocks()
    }
}
