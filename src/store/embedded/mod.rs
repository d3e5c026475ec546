//! What every embedded engine needs to keep a store's promises.
//!
//! 1. The rest of the crate calls [`mod@store`], which sends a [`verb`]. One thread owns all writes ([`writer`]). It takes what
//!    is queued ([`queue`]) and about to be ([`gather`]), decides each verb in order ([`batch`]), writes the keys that go with
//!    each record ([`keys`], [`records`]), in bounded steps ([`step`]), key by key where whatever is recovered of them makes
//!    sense ([`writes`]), **makes them durable, and only then answers.**
//! 2. It sweeps between the others' verbs ([`sweep`]), and refuses claims where there is no room ([`space`]).
//! 3. No value is over 4 KiB: longer outcomes are kept in pieces, under one digest. Records are listed together ([`listing`]),
//!    and the totals say what is listed ([`totals`]).
//! 4. Any I/O error, of a write, a sync or a read, poisons the store ([`state`]), as does a write that never returns
//!    ([`watchdog`]). A sync that failed is not tried again: the kernel may have dropped the pages and would report success.
//!    Recovery is a restart of the process.
//! 5. The directory is locked by a file of our own, before the engine touches it ([`directory`], [`open`], [`mod@close`]).
//! 6. The application can have an effect of its own written together with the record of its outcome ([`transact`],
//!    [`together`]).
//! 7. Reads do not pass through the writer ([`read`], [`cache`]), and are not made where memory knows that there is no record,
//!    or which run it is ([`present`]).
//! 8. Where what lists the records is damaged, it is made anew at the opening ([`repair`]).
//!
//! What an engine has to do is [`StorageEngine`]: to hold an ordered map of bytes, and to write steps of it durably.

mod batch;
mod cache;
mod close;
pub(super) mod directory;
mod gather;
mod keys;
mod listing;
mod open;
mod present;
mod queue;
mod read;
mod records;
mod repair;
mod space;
mod state;
mod step;
mod storage_engine;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod together;
mod totals;
mod transact;
mod verb;
mod watchdog;
mod writer;
mod writes;

pub(super) use open::Setup;
pub(super) use space::Limits;
pub(super) use state::PANICKED;
pub(super) use storage_engine::{Own, ReadError, StorageEngine};
pub(super) use store::Embedded;
pub(super) use transact::quietly;
pub use transact::{Abort, CommitError, TransactionError};
pub(crate) use transact::{Purpose, Reason, Transact};
pub(super) use writes::{ENTRY_BYTES, Writes};
