//! The entries of the ledger: charges, with their refunds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};
use tower_idempotency::IdempotencyContext;

use crate::api::account::Account;

/// The most refunds of a charge. It keeps an entry well below the 4 KiB that sled takes into its log.
const MAX_REFUNDS: usize = 6;

/// A charge without its id, as it is stored. The id is in the key: account and id, 16 bytes each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) amount: u64,
    pub(crate) currency: String,
    pub(crate) description: Option<String>,
    pub(crate) created: u64,
    /// The intent of the run that made the charge; `None` without a key.
    #[serde(default)]
    pub(crate) intent: Option<Intent>,
    pub(crate) refunds: Vec<Refund>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) amount: u64,
    pub(crate) created: u64,
    /// The intent, by which the run that made the charge is found.
    pub(crate) intent: Option<Intent>,
}

/// The reason why nothing was refunded.
#[derive(Debug)]
pub(crate) enum NotRefunded {
    NoSuchCharge,
    TooMuch { left: u64 },
    TooMany,
}

impl Entry {
    pub(crate) fn refunded(&self) -> u64 {
        self.refunds.iter().map(|refund| refund.amount).sum()
    }

    /// Adds a refund of `amount`, or of what is left.
    pub(crate) fn refund(&mut self, amount: Option<u64>, refund: &Refund) -> Result<Refund, NotRefunded> {
        let left = self.amount.saturating_sub(self.refunded());
        let amount = amount.unwrap_or(left);
        if amount > left || left == 0 {
            return Err(NotRefunded::TooMuch { left });
        }
        if self.refunds.len() >= MAX_REFUNDS {
            return Err(NotRefunded::TooMany);
        }
        let refund = Refund { amount, ..refund.clone() };
        self.refunds.push(refund.clone());
        Ok(refund)
    }
}

/// The id of a charge: microseconds since 1970, so that ids sort by age, and a random number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChargeId(pub(crate) [u8; 16]);

/// The key that a run derives for its charge or refund: the same in every attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent(u128);

impl Intent {
    pub(crate) fn of(derived_key: &str) -> Option<Self> {
        u128::from_str_radix(derived_key, 16).ok().map(Self)
    }

    /// Returns the intent of one step of a request, or `None` for a request without a key.
    pub(crate) fn of_step(context: Option<&IdempotencyContext>, step: &str) -> Option<Self> {
        context.and_then(|context| Self::of(&context.derived_key(step)))
    }

    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Returns the derived key, as the operators' page shows it.
    pub(crate) fn text(self) -> String {
        format!("{:032x}", self.0)
    }
}

/// The sum that a run was about to charge or to refund, as the run noted it under its intent.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    pub(crate) amount: u64,
    pub(crate) currency: String,
}

impl Noted {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.amount.to_be_bytes(), self.currency.as_bytes()].concat()
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (amount, currency) = bytes.split_first_chunk()?;
        Some(Self { amount: u64::from_be_bytes(*amount), currency: String::from_utf8(currency.to_vec()).ok()? })
    }
}

/// Returns the key of a charge: the account and the id.
pub(crate) fn charge_key(account: Account, id: ChargeId) -> [u8; 32] {
    join(account.bytes(), id.0)
}

/// Returns the key under which a charge is found by its intent.
pub(crate) fn intent_key(intent: Intent, id: ChargeId) -> [u8; 32] {
    join(intent.bytes(), id.0)
}

fn join(left: [u8; 16], right: [u8; 16]) -> [u8; 32] {
    let mut key = [0; 32];
    let (first, second) = key.split_at_mut(16);
    first.copy_from_slice(&left);
    second.copy_from_slice(&right);
    key
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
