//! The charges, kept in a tree of their own in the store's database.
//!
//! The stand-in for what a real server could not take back: a card network, an e-mail. It knows nothing of keys, and
//! gives every charge a fresh id, so that a second effect shows.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, Serializer};
use tower_idempotency::SledStore;
use tower_idempotency::store::StoreError;

use crate::account::Account;

pub(crate) struct Ledger {
    charges: sled::Tree,
    // `None` where nothing outlives the process anyway.
    durable: Option<SledStore>,
    last_id: AtomicU64,
}

/// A charge without its id, as it is stored. The id is in the key: account and id, 16 bytes each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) amount: u64,
    pub(crate) amount_refunded: u64,
    pub(crate) currency: String,
    pub(crate) description: Option<String>,
    pub(crate) created: u64,
}

/// Microseconds since 1970, so that ids sort by age, and a random number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChargeId([u8; 16]);

#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("the ledger failed")]
    Database(#[from] sled::Error),
    #[error("the ledger could not be made durable")]
    Sync(#[from] StoreError),
    #[error("an entry of the ledger can't be read or written")]
    Entry(#[from] serde_json::Error),
    #[error("there is no random number to be had: {0}")]
    Random(getrandom::Error),
}

/// How a refund ended.
#[derive(Debug)]
pub(crate) enum Refunded {
    Done { amount: u64, currency: String },
    NoSuchCharge,
    TooMuch { left: u64 },
}

impl Ledger {
    pub(crate) fn new(charges: sled::Tree, durable: Option<SledStore>) -> Self {
        Self { charges, durable, last_id: AtomicU64::new(0) }
    }

    /// Enters a charge. When this returns, it survives a power cut.
    pub(crate) async fn charge(&self, account: Account, entry: &Entry) -> Result<ChargeId, LedgerError> {
        let id = self.fresh_id()?;
        self.charges.insert(key(account, id), serde_json::to_vec(entry)?)?;
        self.sync().await?;
        Ok(id)
    }

    /// Refunds `amount`, or what is left, in one step.
    pub(crate) async fn refund(
        &self,
        account: Account,
        id: ChargeId,
        amount: Option<u64>,
    ) -> Result<Refunded, LedgerError> {
        let key = key(account, id);
        let (refund, currency) = loop {
            let Some(old) = self.charges.get(key)? else { return Ok(Refunded::NoSuchCharge) };
            let mut entry: Entry = serde_json::from_slice(&old)?;
            let left = entry.amount.saturating_sub(entry.amount_refunded);
            let refund = amount.unwrap_or(left);
            if refund > left || left == 0 {
                return Ok(Refunded::TooMuch { left });
            }
            entry.amount_refunded += refund;
            let new = serde_json::to_vec(&entry)?;
            // Another refund may have come between.
            if self.charges.compare_and_swap(key, Some(old), Some(new))?.is_ok() {
                break (refund, entry.currency);
            }
        };
        self.sync().await?;
        Ok(Refunded::Done { amount: refund, currency })
    }

    pub(crate) fn get(&self, account: Account, id: ChargeId) -> Result<Option<Entry>, LedgerError> {
        let entry = self.charges.get(key(account, id))?;
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

    async fn sync(&self) -> Result<(), LedgerError> {
        match &self.durable {
            Some(store) => Ok(store.sync().await?),
            None => Ok(()),
        }
    }

    fn fresh_id(&self) -> Result<ChargeId, LedgerError> {
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

pub(crate) fn random<const N: usize>() -> Result<[u8; N], LedgerError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(LedgerError::Random)?;
    Ok(bytes)
}

fn key(account: Account, id: ChargeId) -> [u8; 32] {
    let mut key = [0; 32];
    let (left, right) = key.split_at_mut(16);
    left.copy_from_slice(&account.bytes());
    right.copy_from_slice(&id.0);
    key
}

pub(crate) fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl fmt::Display for ChargeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ch_{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for ChargeId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits =
            text.strip_prefix("ch_").filter(|digits| digits.len() == 32 && !digits.starts_with('+')).ok_or(())?;
        u128::from_str_radix(digits, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| ())
    }
}

impl Serialize for ChargeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
