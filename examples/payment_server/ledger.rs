//! The charges, kept in trees of their own in the store's database.
//!
//! The stand-in for what a real server could not take back: a card network, an e-mail. It gives every charge a fresh
//! id, so that a second effect shows. Beside each charge it notes by which intent it was made, so that a charge whose
//! answer was never recorded can be found.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sled::Tree;
use tower_idempotency::SledStore;
use tower_idempotency::engine::CommitError;
use tower_idempotency::store::{Abort, TransactionTree};

use crate::account::Account;
use crate::entry::{ChargeId, Entry, Intent, NotRefunded, Refund, charge_key, intent_key};

const CHARGES: &str = "charges";
const INTENTS: &str = "intents";

pub(crate) struct Ledger {
    pub(crate) charges: Tree,
    pub(crate) intents: Tree,
    pub(crate) store: SledStore,
    /// Whether what has a key is committed together with its record.
    pub(crate) atomic: bool,
    last_id: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("the ledger failed")]
    Database(#[from] sled::Error),
    #[error("an entry of the ledger can't be read or written")]
    Entry(#[from] serde_json::Error),
    #[error("there is no random number to be had: {0}")]
    Random(getrandom::Error),
}

/// Why a transaction is given up.
#[derive(Debug)]
pub(crate) enum Reason {
    Refused(NotRefunded),
    Entry(serde_json::Error),
}

/// A refund, and the charge it belongs to.
pub(crate) type Refunded = (Refund, Entry);

impl Ledger {
    pub(crate) fn open(store: SledStore, atomic: bool) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let database = store.db()?;
        let (charges, intents) = (database.open_tree(CHARGES)?, database.open_tree(INTENTS)?);
        Ok(Self { charges, intents, store, atomic, last_id: AtomicU64::new(0) })
    }

    /// Enters a charge. When this returns, it survives a power cut.
    pub(crate) async fn charge(
        &self,
        account: Account,
        id: ChargeId,
        entry: Entry,
        intent: Option<Intent>,
    ) -> Result<(), CommitError<Reason>> {
        let enter =
            move |[charges, intents]: [TransactionTree<'_>; 2]| enter(&charges, &intents, account, id, &entry, intent);
        self.store.transaction([&self.charges, &self.intents], enter).await
    }

    /// Refunds `amount`, or what is left, in one step.
    pub(crate) async fn refund(
        &self,
        account: Account,
        id: ChargeId,
        amount: Option<u64>,
        refund: Refund,
    ) -> Result<Refunded, CommitError<Reason>> {
        let take_back = move |[charges, intents]: [TransactionTree<'_>; 2]| {
            take_back(&charges, &intents, account, id, amount, &refund)
        };
        self.store.transaction([&self.charges, &self.intents], take_back).await
    }

    /// The charges that were made with this intent, or refunded in part: more than one only where a run was repeated.
    pub(crate) fn intended(&self, intent: Intent) -> Result<Vec<(ChargeId, Entry)>, LedgerError> {
        let mut found = Vec::new();
        for item in self.intents.scan_prefix(intent.bytes()) {
            let (key, account) = item?;
            let (Some(id), Ok(account)) = (key.last_chunk(), account.as_ref().try_into()) else { continue };
            let (id, account) = (ChargeId(*id), Account::from_bytes(account));
            found.extend(self.get(account, id)?.map(|entry| (id, entry)));
        }
        Ok(found)
    }

    pub(crate) fn get(&self, account: Account, id: ChargeId) -> Result<Option<Entry>, LedgerError> {
        let entry = self.charges.get(charge_key(account, id))?;
        Ok(entry.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    /// The newest `limit` charges of an account, and whether there are more.
    pub(crate) fn list(&self, account: Account, limit: usize) -> Result<(Vec<(ChargeId, Entry)>, bool), LedgerError> {
        let mut newest = self.charges.scan_prefix(account.bytes()).rev();
        let mut found = Vec::new();
        for item in newest.by_ref().take(limit) {
            let (key, value) = item?;
            let Some(id) = key.last_chunk() else { continue };
            found.push((ChargeId(*id), serde_json::from_slice(&value)?));
        }
        Ok((found, newest.next().is_some()))
    }

    pub(crate) fn fresh_id(&self) -> Result<ChargeId, LedgerError> {
        let now = u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX);
        let last = self.last_id.fetch_max(now, Ordering::Relaxed);
        // Two in one microsecond, or a clock set back: still in order.
        let number = if now > last { now } else { self.last_id.fetch_add(1, Ordering::Relaxed) + 1 };
        let mut id: [u8; 16] = random()?;
        let (time, _) = id.split_at_mut(8);
        time.copy_from_slice(&number.to_be_bytes());
        Ok(ChargeId(id))
    }
}

/// A charge, and by which intent it was made: who finds the one can find the other.
pub(crate) fn enter(
    charges: &TransactionTree<'_>,
    intents: &TransactionTree<'_>,
    account: Account,
    id: ChargeId,
    entry: &Entry,
    intent: Option<Intent>,
) -> Result<(), Abort<Reason>> {
    if let Some(intent) = intent {
        intents.insert(&intent_key(intent, id), &account.bytes())?;
    }
    let entry = serde_json::to_vec(entry).map_err(|error| Abort::Because(Reason::Entry(error)))?;
    charges.insert(&charge_key(account, id), entry)?;
    Ok(())
}

/// A refund, entered with its charge.
pub(crate) fn take_back(
    charges: &TransactionTree<'_>,
    intents: &TransactionTree<'_>,
    account: Account,
    id: ChargeId,
    amount: Option<u64>,
    refund: &Refund,
) -> Result<Refunded, Abort<Reason>> {
    let refused = |refused| Abort::Because(Reason::Refused(refused));
    let old = charges.get(charge_key(account, id))?.ok_or_else(|| refused(NotRefunded::NoSuchCharge))?;
    let mut entry: Entry = serde_json::from_slice(&old).map_err(|error| Abort::Because(Reason::Entry(error)))?;
    let refunded = entry.refund(amount, refund).map_err(refused)?;
    enter(charges, intents, account, id, &entry, refund.intent)?;
    Ok((refunded, entry))
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], LedgerError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(LedgerError::Random)?;
    Ok(bytes)
}

pub(crate) fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
