//! A ledger in the database of an embedded store. That store may hold the records, too.

use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tower_idempotency::IdempotencyContext;
use tower_idempotency::store::CommitError;
use tower_idempotency::store::{Abort, StoreError};

use super::entry::{ChargeId, Entry, Intent, NotRefunded, Noted, Refund, charge_key, intent_key};
use super::error::LedgerError;
use super::ids::Ids;
use super::tables::{Changing, Database, Table, Tables};
use crate::api::account::Account;
use crate::api::charges::Charge;
use crate::api::refunds::Answer;
use crate::json::json;

pub(crate) struct OwnLedger {
    tables: Tables,
    /// `true` if a change with a key is committed together with its record. A crash leaves both or neither.
    is_atomic: bool,
    ids: Ids,
}

/// The reason why a transaction is given up.
#[derive(Debug)]
enum Reason {
    Refused(NotRefunded),
    Entry(serde_json::Error),
}

impl OwnLedger {
    pub(super) fn open(database: Database, is_atomic: bool) -> Result<Self, LedgerError> {
        Ok(Self { tables: Tables::open(database)?, is_atomic, ids: Ids::default() })
    }

    /// Enters a charge. When this returns its id and its answer, it survives a power cut.
    pub(super) async fn charge(
        &self,
        context: Option<&IdempotencyContext>,
        account: Account,
        entry: Entry,
    ) -> Result<(ChargeId, Response), LedgerError> {
        let id = self.ids.fresh()?;
        let intent = Intent::of_step(context, "charge");
        let entry = Entry { intent, ..entry };
        let entered = self.enter(context, move |tables| {
            enter(tables, account, id, &entry, intent.map(|intent| (intent, entry.amount)))?;
            answer(&Charge::of(id, entry.clone()))
        });
        match entered.await {
            Ok(answer) => Ok((id, answer)),
            Err(error) => Err(failure(error)),
        }
    }

    /// Refunds `amount`, or what is left, in one step, and returns the answer.
    pub(super) async fn refund(
        &self,
        context: Option<&IdempotencyContext>,
        account: Account,
        id: ChargeId,
        amount: Option<u64>,
        refund: Refund,
    ) -> Result<Result<Response, NotRefunded>, LedgerError> {
        let entered = self.enter(context, move |tables| {
            let (refunded, entry) = take_back(tables, account, id, amount, &refund)?;
            answer(&Answer::of(id, refunded, &entry))
        });
        match entered.await {
            Ok(answer) => Ok(Ok(answer)),
            Err(CommitError::Aborted(Reason::Refused(refused))) => Ok(Err(refused)),
            Err(error) => Err(failure(error)),
        }
    }

    /// Makes the changes of `closure`. If the ledger is atomic and the request has a key, the record of the answer is
    /// in the same transaction.
    async fn enter<F>(&self, context: Option<&IdempotencyContext>, closure: F) -> Result<Response, CommitError<Reason>>
    where
        F: FnMut(&dyn Changing) -> Result<http::Response<Bytes>, Abort<Reason>> + Send + 'static,
    {
        self.tables.change(context.filter(|_| self.is_atomic), closure).await
    }

    /// Returns the charges that were made with this intent, or refunded in part, and the sum that was noted under it.
    pub(super) async fn intended(&self, intent: Intent) -> Result<Vec<(ChargeId, Entry, Option<Noted>)>, LedgerError> {
        self.read(move |tables| intended(tables, intent)).await
    }

    pub(super) async fn get(&self, account: Account, id: ChargeId) -> Result<Option<Entry>, LedgerError> {
        self.read(move |tables| get(tables, account, id)).await
    }

    /// Returns the newest `limit` charges of an account, and whether there are more.
    pub(super) async fn list(
        &self,
        account: Account,
        limit: usize,
    ) -> Result<(Vec<(ChargeId, Entry)>, bool), LedgerError> {
        self.read(move |tables| list(tables, account, limit)).await
    }

    /// Reads in a thread that may block, because the disk may take a while.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let tables = self.tables.clone();
        let reading = tokio::task::spawn_blocking(move || read(&tables));
        reading.await.unwrap_or_else(|error| Err(LedgerError::failed(error)))
    }
}

fn intended(tables: &Tables, intent: Intent) -> Result<Vec<(ChargeId, Entry, Option<Noted>)>, LedgerError> {
    let mut found = Vec::new();
    for item in tables.prefix(Table::Intents, &intent.bytes()) {
        let (key, value) = item?;
        let (Some(id), Some((account, noted))) = (key.last_chunk(), value.split_first_chunk()) else { continue };
        let (id, account) = (ChargeId(*id), Account::from_bytes(*account));
        found.extend(get(tables, account, id)?.map(|entry| (id, entry, Noted::read(noted))));
    }
    Ok(found)
}

fn get(tables: &Tables, account: Account, id: ChargeId) -> Result<Option<Entry>, LedgerError> {
    let entry = tables.get(Table::Charges, &charge_key(account, id))?;
    Ok(entry.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
}

fn list(tables: &Tables, account: Account, limit: usize) -> Result<(Vec<(ChargeId, Entry)>, bool), LedgerError> {
    let mut newest = tables.prefix(Table::Charges, &account.bytes()).rev();
    let mut found = Vec::new();
    for item in newest.by_ref().take(limit) {
        let (key, value) = item?;
        let Some(id) = key.last_chunk() else { continue };
        found.push((ChargeId(*id), serde_json::from_slice(&value)?));
    }
    Ok((found, newest.next().is_some()))
}

/// Enters a charge, its intent, and the sum that was intended: the intent leads to the charge.
fn enter(
    tables: &dyn Changing,
    account: Account,
    id: ChargeId,
    entry: &Entry,
    intended: Option<(Intent, u64)>,
) -> Result<(), Abort<Reason>> {
    if let Some((intent, amount)) = intended {
        let noted = Noted { amount, currency: entry.currency.clone() };
        let noted = [&account.bytes()[..], &noted.bytes()].concat();
        tables.insert(Table::Intents, &intent_key(intent, id), noted)?;
    }
    let entry = serde_json::to_vec(entry).map_err(|error| Abort::Because(Reason::Entry(error)))?;
    Ok(tables.insert(Table::Charges, &charge_key(account, id), entry)?)
}

/// Refunds a charge, and enters the refund with it.
fn take_back(
    tables: &dyn Changing,
    account: Account,
    id: ChargeId,
    amount: Option<u64>,
    refund: &Refund,
) -> Result<(Refund, Entry), Abort<Reason>> {
    let refused = |refused| Abort::Because(Reason::Refused(refused));
    let old =
        tables.get(Table::Charges, &charge_key(account, id))?.ok_or_else(|| refused(NotRefunded::NoSuchCharge))?;
    let mut entry: Entry = serde_json::from_slice(&old).map_err(|error| Abort::Because(Reason::Entry(error)))?;
    let refunded = entry.refund(amount, refund).map_err(refused)?;
    enter(tables, account, id, &entry, refund.intent.map(|intent| (intent, refunded.amount)))?;
    Ok((refunded, entry))
}

fn answer(answer: &impl Serialize) -> Result<http::Response<Bytes>, Abort<Reason>> {
    json(answer).map_err(|error| Abort::Because(Reason::Entry(error)))
}

fn failure(error: CommitError<Reason>) -> LedgerError {
    match error {
        CommitError::Aborted(Reason::Entry(error)) => LedgerError::Entry(error),
        CommitError::Store(error @ (StoreError::Overloaded { .. } | StoreError::Unavailable { .. })) => {
            LedgerError::away(error)
        }
        error => LedgerError::failed(format!("{error:?}")),
    }
}
