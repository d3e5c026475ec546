//! The charges: the stand-in for what a real server could not take back, such as a card network or an e-mail.
//!
//! Every charge has a fresh id, so that a second effect shows. Beside each charge the ledger notes by which intent it
//! was made, so that a charge whose answer was never recorded can be found.

// - `entry.rs`: what is entered: charges, with their refunds; `ids.rs`: by which names.
// - `trees.rs`: a ledger in sled. Its methods are what another ledger has to have.
// - `error.rs`: what can go wrong.

mod entry;
mod error;
mod ids;
mod trees;

pub(crate) use entry::{ChargeId, Entry, Intent, NotRefunded, Refund};
pub(crate) use error::LedgerError;
pub(crate) use ids::{random, since_1970};
pub(crate) use trees::Ledger;
