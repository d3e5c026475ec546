#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The modules. Each uses only those that come after it:
// - `for_backends.rs`: what the databases of this repository have in common.
// - `in_database.rs`: effect and record in one transaction of the application. `config.rs`: settings from a file.
// - `store.rs`: the store that applications open. `inner.rs`: the state that its handles share, and its tasks.
//   `builder.rs`: its settings. `spawn_on_drop.rs`: a future that is finished even if its caller drops it.
// - `protocol/`: one transition of a record.
// - `session/`: tracks whether this process and the others are alive, and which rows have changed.
// - `database/`: the one client of the database.
// - `backend.rs`, `row.rs`, `kind.rs`, `run_record.rs`: the contract of a database. `apply.rs`: the same contract as
//   functions, for a database that does not decide in its own language.

// First, because the page of the store has its methods in the order of the modules.
mod store;

mod apply;
mod backend;
mod builder;
#[cfg(feature = "config")]
mod config;
mod database;
#[doc(hidden)]
pub mod for_backends;
mod in_database;
mod inner;
mod kind;
mod protocol;
mod row;
mod run_record;
mod session;
mod spawn_on_drop;
#[cfg(test)]
mod tests;

pub use apply::Moment;
pub use backend::{
    Answer, Backend, BackendError, Clocks, Expect, GRACE, Guarantee, Kind, NewExpiry, NewFence, Row, ServerId, Stamp,
    Token, Write,
};
pub use builder::SharedStoreBuilder;
#[cfg(feature = "config")]
pub use config::SharedConfig;
/// The stream that [`Backend::changes`] returns.
#[doc(no_inline)]
pub use futures_util::stream::BoxStream;
#[doc(hidden)]
pub use protocol::transaction::PendingTransaction;
pub use run_record::{RecordByStatement, RecordInTransaction, RunRecord};
pub use store::SharedStore;

/// Returns a token of random bytes from the operating system.
fn random_token() -> Token {
    Token(random())
}

/// Returns random bytes from the operating system.
#[doc(hidden)]
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Without a token of its own, this process can't recognise its own writes.
        panic!("the operating system gives no random bytes: {error}");
    }
    bytes
}
