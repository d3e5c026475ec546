//! The charges. They represent the effects that a real server could not take back, such as those of a card network or
//! an e-mail.
//!
//! Every charge has a fresh id, so that a second effect shows. With each charge the ledger notes its intent, so that a
//! charge whose answer was never recorded can be found.

// - `entry.rs`: the entries, which are charges with their refunds; `ids.rs`: their ids.
// - `either.rs`: a ledger of one of the two kinds.
// - `own.rs`: a ledger in sled or fjall, of one server; `tables.rs`: its tables.
// - `table.rs`: a ledger in PostgreSQL, of all servers; `table.sql`: its table; `pool.rs`: the connections to it.
// - `error.rs`: the errors.

mod either;
mod entry;
mod error;
mod ids;
mod own;
#[cfg(feature = "postgres")]
mod pool;
#[cfg(feature = "postgres")]
mod table;
mod tables;

pub(crate) use either::Ledger;
pub(crate) use entry::{ChargeId, Entry, Intent, NotRefunded, Noted, Refund};
pub(crate) use error::LedgerError;
pub(crate) use ids::{random, since_1970};
pub(crate) use tables::Database;
