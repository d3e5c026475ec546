//! The charges: the stand-in for what a real server could not take back, such as a card network or an e-mail.
//!
//! Every charge has a fresh id, so that a second effect shows. With each charge the ledger notes by which intent it
//! was made, so that a charge whose answer was never recorded can be found.

// - `entry.rs`: what is entered: charges, with their refunds; `ids.rs`: by which names.
// - `either.rs`: a ledger: one of the two kinds.
// - `trees.rs`: a ledger in sled, of one server.
// - `table.rs`: a ledger in PostgreSQL, of all servers; `table.sql`: its table; `pool.rs`: the connections to it.
// - `error.rs`: what can go wrong.

mod either;
mod entry;
mod error;
mod ids;
mod pool;
mod table;
mod trees;

pub(crate) use either::Ledger;
pub(crate) use entry::{ChargeId, Entry, Intent, NotRefunded, Noted, Refund};
pub(crate) use error::LedgerError;
pub(crate) use ids::{random, since_1970};
