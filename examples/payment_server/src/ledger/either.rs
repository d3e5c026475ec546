//! A ledger of either kind.

use axum::response::Response;
use tower_idempotency::IdempotencyContext;
#[cfg(feature = "postgres")]
use tower_idempotency_postgres::PostgresStore;

use super::entry::{ChargeId, Entry, Intent, NotRefunded, Noted, Refund};
use super::error::LedgerError;
use super::own::OwnLedger;
#[cfg(feature = "postgres")]
use super::table::TableLedger;
use super::tables::Database;
use crate::api::account::Account;

pub(crate) enum Ledger {
    Own(OwnLedger),
    #[cfg(feature = "postgres")]
    Table(Box<TableLedger>),
}

impl Ledger {
    /// Opens this server's own ledger. With `is_atomic`, a change with a key is committed together with its record,
    /// which is in the same store.
    pub(crate) fn own(database: Database, is_atomic: bool) -> Result<Self, LedgerError> {
        OwnLedger::open(database, is_atomic).map(Self::Own)
    }

    /// Opens the ledger of all servers of a namespace. A change with a key is committed together with its record.
    #[cfg(feature = "postgres")]
    pub(crate) async fn table(url: &str, store: PostgresStore, namespace: &str) -> Result<Self, LedgerError> {
        TableLedger::open(url, store, namespace).await.map(|ledger| Self::Table(Box::new(ledger)))
    }

    /// Enters a charge. When this returns its id and its answer, it survives a power cut.
    pub(crate) async fn charge(
        &self,
        context: Option<&IdempotencyContext>,
        account: Account,
        entry: Entry,
    ) -> Result<(ChargeId, Response), LedgerError> {
        match self {
            Self::Own(ledger) => ledger.charge(context, account, entry).await,
            #[cfg(feature = "postgres")]
            Self::Table(ledger) => ledger.charge(context, account, entry).await,
        }
    }

    /// Refunds `amount`, or what is left, in one step, and returns the answer.
    pub(crate) async fn refund(
        &self,
        context: Option<&IdempotencyContext>,
        account: Account,
        id: ChargeId,
        amount: Option<u64>,
        refund: Refund,
    ) -> Result<Result<Response, NotRefunded>, LedgerError> {
        match self {
            Self::Own(ledger) => ledger.refund(context, account, id, amount, refund).await,
            #[cfg(feature = "postgres")]
            Self::Table(ledger) => ledger.refund(context, account, id, amount, refund).await,
        }
    }

    /// Returns the charges that were made with this intent, or refunded in part, and the sum that was noted under it,
    /// the oldest first. There is more than one only if a run was repeated, or the same request was sent again after
    /// the retention.
    pub(crate) async fn intended(&self, intent: Intent) -> Result<Vec<(ChargeId, Entry, Option<Noted>)>, LedgerError> {
        match self {
            Self::Own(ledger) => ledger.intended(intent).await,
            // Charge and record are one transaction there, and the note would be a part of it.
            #[cfg(feature = "postgres")]
            Self::Table(ledger) => {
                let charges = ledger.intended(intent).await?.into_iter();
                Ok(charges.map(|(id, entry)| (id, entry, None)).collect())
            }
        }
    }

    pub(crate) async fn get(&self, account: Account, id: ChargeId) -> Result<Option<Entry>, LedgerError> {
        match self {
            Self::Own(ledger) => ledger.get(account, id).await,
            #[cfg(feature = "postgres")]
            Self::Table(ledger) => ledger.get(account, id).await,
        }
    }

    /// Returns the newest `limit` charges of an account, and whether there are more.
    pub(crate) async fn list(
        &self,
        account: Account,
        limit: usize,
    ) -> Result<(Vec<(ChargeId, Entry)>, bool), LedgerError> {
        match self {
            Self::Own(ledger) => ledger.list(account, limit).await,
            #[cfg(feature = "postgres")]
            Self::Table(ledger) => ledger.list(account, limit).await,
        }
    }
}
