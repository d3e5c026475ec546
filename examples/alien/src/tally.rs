//! What has happened: counts, the story of each payment, and what each side believes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::bank::{Charge, now};
use crate::fate::Mischief;

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) enum Side {
    Naive,
    Ours,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Naive, Self::Ours];

    /// Its name, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Ours => "tower-idempotency",
        }
    }
}

/// A payment: whose it is, and how often it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Payment {
    pub(crate) customer: u32,
    pub(crate) order: u32,
    /// The attempts so far.
    pub(crate) attempts: Arc<AtomicU32>,
}

/// What a customer believes of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Belief {
    /// The server has said that it was charged, by this charge.
    Acknowledged(Charge),
    /// It was not charged.
    Refused(String),
    /// It may have been charged. The key to ask again with is the payment's.
    Unknown(String),
}

/// The name of a payment, which is its key.
pub(crate) fn key(seed: u64, customer: u32, order: u32) -> String {
    format!("alien-{seed}-customer-{customer}-order-{order}")
}

/// Something that happened to a payment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    /// Milliseconds since the beginning.
    pub(crate) at: u64,
    pub(crate) what: String,
}

/// What is counted while it happens.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) payments: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) mischief: Mutex<BTreeMap<&'static str, u64>>,
    /// Charges in the ledger, payments that were charged more than once, and acknowledged charges that are not there,
    /// when it was last looked at.
    pub(crate) charges: AtomicU64,
    pub(crate) twice: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl Counts {
    /// How many requests or answers did not arrive whole.
    pub(crate) fn swallowed(&self) -> u64 {
        let mischief = locked(&self.mischief);
        Mischief::ALL.iter().filter(|kind| kind.swallows()).filter_map(|kind| mischief.get(kind.text())).sum()
    }
}

/// A moment of a side, for the plots.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) at: u64,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) charges: u64,
    pub(crate) twice: u64,
}

#[derive(Debug)]
struct Inner {
    seed: u64,
    began: Instant,
    began_at: u64,
    counts: [Counts; 2],
    events: [Mutex<HashMap<String, Vec<Event>>>; 2],
    beliefs: [Mutex<HashMap<String, Belief>>; 2],
    samples: [Mutex<Vec<Sample>>; 2],
    blows: Mutex<Vec<Event>>,
}

/// The story of a run. Clones are the same story.
#[derive(Debug, Clone)]
pub(crate) struct Story(Arc<Inner>);

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Inner {
            seed,
            began: Instant::now(),
            began_at: now(),
            counts: Default::default(),
            events: Default::default(),
            beliefs: Default::default(),
            samples: Default::default(),
            blows: Mutex::default(),
        }))
    }

    /// Milliseconds since the beginning.
    pub(crate) fn at(&self) -> u64 {
        self.0.began.elapsed().as_millis() as u64
    }
    pub(crate) fn counts(&self, side: Side) -> &Counts {
        &self.0.counts[side as usize]
    }

    pub(crate) fn tell(&self, side: Side, payment: &Payment, what: String) {
        let key = key(self.0.seed, payment.customer, payment.order);
        let event = Event { at: self.at(), what };
        locked(&self.0.events[side as usize]).entry(key).or_default().push(event);
    }

    pub(crate) fn count(&self, side: Side, attempt: u32, mischief: Mischief) {
        let counts = self.counts(side);
        counts.sent.fetch_add(1, Ordering::Relaxed);
        counts.retried.fetch_add(u64::from(attempt > 0), Ordering::Relaxed);
        if mischief != Mischief::None {
            *locked(&counts.mischief).entry(mischief.text()).or_default() += 1;
        }
    }

    pub(crate) fn believe(&self, side: Side, payment: &Payment, belief: Belief) {
        let counts = self.counts(side);
        let count = |belief: &Belief| match belief {
            Belief::Acknowledged(_) => &counts.acknowledged,
            Belief::Refused(_) => &counts.refused,
            Belief::Unknown(_) => &counts.unknown,
        };
        count(&belief).fetch_add(1, Ordering::Relaxed);
        let what = match &belief {
            Belief::Acknowledged(charge) => format!("the customer believes: paid, by charge {}", charge.id),
            Belief::Refused(why) => format!("the customer believes: not paid ({why})"),
            Belief::Unknown(why) => format!("the customer believes: perhaps paid ({why})"),
        };
        self.tell(side, payment, what);
        let key = key(self.0.seed, payment.customer, payment.order);
        if let Some(before) = locked(&self.0.beliefs[side as usize]).insert(key, belief) {
            count(&before).fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What has become of the servers.
    pub(crate) fn strike(&self, what: String) {
        locked(&self.0.blows).push(Event { at: self.at(), what });
    }
    pub(crate) fn blows(&self) -> Vec<Event> {
        locked(&self.0.blows).clone()
    }
    pub(crate) fn beliefs(&self, side: Side) -> HashMap<String, Belief> {
        locked(&self.0.beliefs[side as usize]).clone()
    }
    pub(crate) fn samples(&self, side: Side) -> Vec<Sample> {
        locked(&self.0.samples[side as usize]).clone()
    }

    /// The story of a payment: what was noted, and the charges of the ledger.
    pub(crate) fn of(&self, side: Side, key: &str, ledger: &[Charge]) -> Vec<Event> {
        let mut events = locked(&self.0.events[side as usize]).get(key).cloned().unwrap_or_default();
        let charges = ledger.iter().filter(|charge| charge.order == key);
        events.extend(charges.map(|charge| Event {
            at: charge.at.saturating_sub(self.0.began_at),
            what: format!("THE SERVER CHARGES {} (charge {})", charge.amount, charge.id),
        }));
        events.sort_by_key(|event| event.at);
        events
    }

    /// Looks at a ledger. The beliefs are older than it is.
    pub(crate) fn sample(&self, side: Side, beliefs: &HashMap<String, Belief>, ledger: &[Charge]) {
        let counts = self.counts(side);
        let twice = charged_twice(ledger).len() as u64;
        counts.charges.store(ledger.len() as u64, Ordering::Relaxed);
        counts.twice.store(twice, Ordering::Relaxed);
        counts.lost.store(lost(beliefs, ledger).len() as u64, Ordering::Relaxed);
        locked(&self.0.samples[side as usize]).push(Sample {
            at: self.at(),
            sent: counts.sent.load(Ordering::Relaxed),
            acknowledged: counts.acknowledged.load(Ordering::Relaxed),
            charges: ledger.len() as u64,
            twice,
        });
    }
}

/// The payments that were charged more than once, and how often.
pub(crate) fn charged_twice(ledger: &[Charge]) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for charge in ledger {
        *count.entry(charge.order.clone()).or_insert(0) += 1;
    }
    count.retain(|_, count| *count > 1);
    count
}

/// The acknowledged charges that the ledger does not have.
pub(crate) fn lost(beliefs: &HashMap<String, Belief>, ledger: &[Charge]) -> Vec<String> {
    let there: HashMap<_, _> = ledger.iter().map(|charge| (charge.id, charge)).collect();
    let is_lost =
        |belief: &Belief| matches!(belief, Belief::Acknowledged(charge) if there.get(&charge.id) != Some(&charge));
    let mut lost: Vec<_> = beliefs.iter().filter(|(_, belief)| is_lost(belief)).map(|(key, _)| key.clone()).collect();
    lost.sort();
    lost
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(id: u64, order: &str) -> Charge {
        Charge { id, order: order.to_owned(), amount: 5, at: 0 }
    }

    #[test]
    fn a_payment_with_two_charges_and_an_acknowledged_charge_that_is_not_there_are_found() {
        let ledger = [charge(1, "a"), charge(2, "b"), charge(3, "a")];
        assert_eq!(charged_twice(&ledger), BTreeMap::from([("a".to_owned(), 2)]));
        let acknowledged = |id, order: &str| (order.to_owned(), Belief::Acknowledged(charge(id, order)));
        let beliefs = HashMap::from([acknowledged(2, "b"), acknowledged(9, "c")]);
        assert_eq!(lost(&beliefs, &ledger), ["c"]);
    }
}
