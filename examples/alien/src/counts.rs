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

/// The names of the numbers.
#[rustfmt::skip]
const NAMES: [&str; 10] = [
    "payments", "sent", "swallowed", "retried", "replayed", "acknowledged", "unknown", "charges", "CHARGED TWICE", "LOST",
];

/// What is counted while it happens.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) payments: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) mischief: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    /// How many requests or answers did not arrive whole.
    pub(crate) fn swallowed(&self) -> u64 {
        let mischief = locked(&self.mischief);
        Mischief::ALL.iter().filter(|kind| kind.swallows()).filter_map(|kind| mischief.get(kind.text())).sum()
    }
}

/// The numbers of a side at one moment, with their names.
pub(crate) type Numbers = [(&'static str, u64); 10];

/// What a side has come to, before its ledger is read: what is acknowledged now is in a ledger that is read later.
#[derive(Debug)]
pub(crate) struct Moment {
    numbers: [u64; 7],
    pub(crate) beliefs: HashMap<String, Belief>,
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
    /// What is shown: the numbers of the last moment whose ledger could be read.
    shown: [Mutex<[u64; 10]>; 2],
    blows: Mutex<Vec<Event>>,
}

/// The story of a run. Clones are the same story.
#[derive(Debug, Clone)]
pub(crate) struct Story(Arc<Inner>);

impl Story {
    /// How many payments a side has acknowledged.
    pub(crate) fn acknowledged(&self, side: Side) -> usize {
        let beliefs = locked(&self.0.beliefs[side as usize]);
        beliefs.values().filter(|belief| matches!(belief, Belief::Acknowledged(_))).count()
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Inner {
            seed,
            began: Instant::now(),
            began_at: now(),
            counts: Default::default(),
            events: Default::default(),
            beliefs: Default::default(),
            samples: Default::default(),
            shown: Default::default(),
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
        let what = match &belief {
            Belief::Acknowledged(charge) => format!("the customer believes: paid, by charge {}", charge.id),
            Belief::Refused(why) => format!("the customer believes: not paid ({why})"),
            Belief::Unknown(why) => format!("the customer believes: perhaps paid ({why})"),
        };
        self.tell(side, payment, what);
        let key = key(self.0.seed, payment.customer, payment.order);
        locked(&self.0.beliefs[side as usize]).insert(key, belief);
    }

    /// What has become of the servers.
    pub(crate) fn strike(&self, what: String) {
        locked(&self.0.blows).push(Event { at: self.at(), what });
    }
    pub(crate) fn blows(&self) -> Vec<Event> {
        locked(&self.0.blows).clone()
    }
    /// Returns what a side has come to by now.
    pub(crate) fn moment(&self, side: Side) -> Moment {
        let beliefs = locked(&self.0.beliefs[side as usize]).clone();
        let acknowledged = beliefs.values().filter(|belief| matches!(belief, Belief::Acknowledged(_))).count();
        let unknown = beliefs.values().filter(|belief| matches!(belief, Belief::Unknown(_))).count();
        let counts = self.counts(side);
        let [payments, sent, retried, replayed] = [&counts.payments, &counts.sent, &counts.retried, &counts.replayed]
            .map(|count| count.load(Ordering::Relaxed));
        let believed = [acknowledged, unknown].map(|count| count as u64);
        let numbers = [payments, sent, counts.swallowed(), retried, replayed, believed[0], believed[1]];
        Moment { numbers, beliefs }
    }

    /// The numbers of a side, all of one moment.
    pub(crate) fn numbers(&self, side: Side) -> Numbers {
        let numbers = *locked(&self.0.shown[side as usize]);
        std::array::from_fn(|index| (NAMES[index], numbers[index]))
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

    /// Looks at a ledger that was read after this moment.
    pub(crate) fn sample(&self, side: Side, moment: &Moment, ledger: &[Charge]) {
        let (charges, twice) = (ledger.len() as u64, charged_twice(ledger).len() as u64);
        let [payments, sent, swallowed, retried, replayed, acknowledged, unknown] = moment.numbers;
        let lost = lost(&moment.beliefs, ledger).len() as u64;
        *locked(&self.0.shown[side as usize]) =
            [payments, sent, swallowed, retried, replayed, acknowledged, unknown, charges, twice, lost];
        locked(&self.0.samples[side as usize]).push(Sample { at: self.at(), sent, acknowledged, charges, twice });
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

    // Seeded fault: the acknowledged payments are counted when the ledger has been read.
    #[test]
    fn what_is_shown_is_of_one_moment() {
        let story = Story::new(1);
        let payment = |order| Payment { customer: 1, order, attempts: Arc::default() };
        let pay = |order: u32| {
            let charge = charge(u64::from(order), &key(1, 1, order));
            story.believe(Side::Ours, &payment(order), Belief::Acknowledged(charge.clone()));
            charge
        };
        let ledger = [pay(1)];
        let moment = story.moment(Side::Ours);
        // Another payment is made while the ledger is read.
        pay(2);
        story.sample(Side::Ours, &moment, &ledger);
        let shown = story.numbers(Side::Ours);
        let of = |name: &str| shown.iter().find(|(other, _)| *other == name).unwrap().1;
        assert_eq!(["acknowledged", "charges", "LOST"].map(of), [1, 1, 0]);
        assert_eq!(story.samples(Side::Ours).last().unwrap().acknowledged, 1);
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
