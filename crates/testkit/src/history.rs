//! The checker of all laboratories. It compares requests and their answers with the effects that took place.
//!
//! The rules, by the numbers that violations carry:
//!
//! 1. At most one effect per key under `Refuse`, `Reconcile` and `Atomic`.
//! 2. Exactly one effect per key for which a client got a success; under `Rerun`, at least one.
//! 3. All outcomes given for a key are identical.
//! 4. No outcome before its record was durable: once a recorded outcome was given, every request sent after that answer
//!    gets that outcome, or "come again", or nothing, across crashes too. An unsaved one binds until the next crash.
//! 5. Another request with the same key never gets an outcome.
//!
//! An answer after which the key is free (a handler's `Release`, a 5xx under `Rerun`) is no outcome: record it as
//! [`ClientAnswer::Refused`], with a name of your own. Effects may be recorded late and in any order, for example from
//! a ledger that is read at the end, but before the violations are read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::Answer;

/// Refusals that say nothing of the outcome: the client is to come again.
const COME_AGAIN: [&str; 5] = ["in-flight", "store-unavailable", "store-full", "overloaded", "shutting-down"];

/// The policy for interrupted runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Refuse,
    Rerun,
    Reconcile,
    /// Effect and record in one transaction, whatever becomes of runs that were interrupted.
    Atomic,
}

/// The answer that a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAnswer {
    /// An outcome: status and body as one byte string; `success` if it says that the effect took place; `recorded` =
    /// false where the server counted the answer as unsaved.
    Outcome { bytes: Bytes, success: bool, recorded: bool },
    /// A refusal, by the slug of its problem type (`in-flight`, `outcome-unknown`, …).
    Refused(String),
    /// No answer came.
    Nothing,
}

impl ClientAnswer {
    /// Returns whether it is a refusal after which a client sends the same request again.
    pub fn says_to_come_again(&self) -> bool {
        matches!(self, Self::Refused(slug) if COME_AGAIN.contains(&&**slug))
    }

    /// A problem is a refusal; any other answer is an outcome, and taken for recorded.
    pub fn of(answer: &Answer) -> Self {
        let problem = answer.problem();
        if !problem.is_empty() {
            return Self::Refused(problem);
        }
        let bytes = [answer.status.as_str().as_bytes(), b" ", &answer.body].concat();
        Self::Outcome { bytes: bytes.into(), success: answer.status.is_success(), recorded: true }
    }

    /// A recorded success.
    pub fn outcome(bytes: impl Into<Bytes>) -> Self {
        Self::Outcome { bytes: bytes.into(), success: true, recorded: true }
    }

    pub fn refused(slug: &str) -> Self {
        Self::Refused(slug.to_owned())
    }

    /// The same answer, where the server counted it as unsaved.
    pub fn unsaved(self) -> Self {
        match self {
            Self::Outcome { bytes, success, .. } => Self::Outcome { bytes, success, recorded: false },
            refused => refused,
        }
    }
}

/// A ticket: which request was sent, and when.
#[derive(Debug)]
pub struct Sent {
    key: String,
    request: String,
    /// Everything that happens has a number of its own.
    at: u64,
    /// The number of crashes before it.
    life: u64,
}

/// The requests, answers and effects of a laboratory. Clones share it.
#[derive(Clone, Debug)]
pub struct History {
    policy: Policy,
    events: Arc<Mutex<Events>>,
}

#[derive(Debug, Default)]
struct Events {
    clock: u64,
    life: u64,
    keys: BTreeMap<String, OfKey>,
    /// Of the keys that were forgotten.
    past: Past,
}

#[derive(Debug, Default)]
struct Past {
    violations: Vec<String>,
    keys: usize,
    acknowledged: usize,
}

/// The history of one key.
#[derive(Debug, Default)]
struct OfKey {
    /// The request that came first.
    owner: Option<String>,
    effects: usize,
    outcomes: Vec<Outcome>,
    /// `true` if the last answer was an outcome.
    settled: bool,
    violations: Vec<String>,
}

/// An outcome, as it was given for the first time.
#[derive(Debug)]
struct Outcome {
    bytes: Bytes,
    success: bool,
    recorded: bool,
    at: u64,
    /// The life in which it was asked for: an unsaved one is forgotten at its end.
    life: u64,
}

impl Outcome {
    /// Returns whether an answer in `life` still has to be this one.
    fn binds(&self, life: u64) -> bool {
        self.recorded || self.life == life
    }
}

impl History {
    pub fn new(policy: Policy) -> Self {
        Self { policy, events: Arc::default() }
    }

    /// A client sends a request: `request` names what it is (its fingerprint): the first one seen for a key owns it.
    pub fn sent(&self, key: &str, request: &str) -> Sent {
        let mut events = self.lock();
        let at = events.tick();
        let life = events.life;
        let of_key = events.of(key);
        of_key.owner.get_or_insert_with(|| request.to_owned());
        Sent { key: key.to_owned(), request: request.to_owned(), at, life }
    }

    /// Records the answer to a request. A ticket that is never answered counts as [`ClientAnswer::Nothing`].
    pub fn answered(&self, sent: Sent, answer: ClientAnswer) {
        let mut events = self.lock();
        let (at, life) = (events.tick(), events.life);
        events.of(&sent.key).answered(&sent, answer, at, life);
    }

    /// The handler's own log says: it took place.
    pub fn effect(&self, key: &str) {
        self.lock().of(key).effects += 1;
    }

    /// The process was killed, the power cut, or the store opened again after it was poisoned.
    pub fn crashed(&self) {
        self.lock().life += 1;
    }

    /// One line per violation.
    pub fn violations(&self) -> Vec<String> {
        let events = self.lock();
        let present = events.keys.iter().flat_map(|(key, of_key)| of_key.judge(key, self.policy));
        events.past.violations.iter().cloned().chain(present).collect()
    }

    /// Keys that were sent and whose last answer is no outcome.
    pub fn unsettled(&self) -> Vec<String> {
        let events = self.lock();
        let unsettled = events.keys.iter().filter(|(_, of_key)| of_key.owner.is_some() && !of_key.settled);
        unsettled.map(|(key, _)| key.clone()).collect()
    }

    /// Returns how many keys were sent.
    pub fn keys(&self) -> usize {
        let events = self.lock();
        events.past.keys + events.keys.values().filter(|of_key| of_key.owner.is_some()).count()
    }

    /// Of how many keys an outcome was given.
    pub fn acknowledged(&self) -> usize {
        let events = self.lock();
        events.past.acknowledged + events.keys.values().filter(|of_key| !of_key.outcomes.is_empty()).count()
    }

    /// Judges a key, keeps its violations and its place in the figures, and frees the rest: for long runs. It must not
    /// be seen again, neither sent nor in an effect.
    pub fn forget(&self, key: &str) {
        let mut events = self.lock();
        let Some(of_key) = events.keys.remove(key) else { return };
        let violations = of_key.judge(key, self.policy);
        let past = &mut events.past;
        past.violations.extend(violations);
        past.keys += usize::from(of_key.owner.is_some());
        past.acknowledged += usize::from(!of_key.outcomes.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().expect("nothing panics under this lock")
    }
}

impl Events {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn of(&mut self, key: &str) -> &mut OfKey {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.to_owned(), OfKey::default());
        }
        self.keys.get_mut(key).expect("it is there now")
    }
}

impl OfKey {
    fn answered(&mut self, sent: &Sent, answer: ClientAnswer, at: u64, life: u64) {
        let is_owner = self.owner.as_ref() == Some(&sent.request);
        match answer {
            ClientAnswer::Nothing => {}
            ClientAnswer::Outcome { bytes, .. } if !is_owner => {
                let line = format!("rule 5: another request, {}, got the outcome {}", sent.request, short(&bytes));
                self.violations.push(line);
            }
            ClientAnswer::Refused(_) if !is_owner => {}
            ClientAnswer::Outcome { bytes, success, recorded } => {
                self.settled = true;
                let outcome = Outcome { bytes, success, recorded, at, life: sent.life };
                self.given(outcome, life);
            }
            ClientAnswer::Refused(slug) => {
                self.settled = false;
                self.refused(sent, &slug, life);
            }
        }
    }

    /// Rule 3.
    fn given(&mut self, outcome: Outcome, life: u64) {
        let other = self.outcomes.iter().find(|given| given.binds(life) && given.bytes != outcome.bytes);
        if let Some(other) = other {
            let line = format!("rule 3: two outcomes: {} and {}", short(&other.bytes), short(&outcome.bytes));
            self.violations.push(line);
        }
        // What was given before says as much, and said it earlier.
        let is_known = self.outcomes.iter().any(|given| {
            given.bytes == outcome.bytes && (given.recorded || (!outcome.recorded && given.life == outcome.life))
        });
        if !is_known {
            self.outcomes.push(outcome);
        }
    }

    /// Rule 4. Where another outcome comes instead, rule 3 says so.
    fn refused(&mut self, sent: &Sent, slug: &str, life: u64) {
        let given = self.outcomes.iter().find(|given| given.at < sent.at && given.binds(life));
        if let Some(given) = given
            && !COME_AGAIN.contains(&slug)
        {
            self.violations.push(format!("rule 4: {slug} after the outcome {}", short(&given.bytes)));
        }
    }

    /// All that is wrong with this key, the rules about effects included.
    fn judge(&self, key: &str, policy: Policy) -> Vec<String> {
        let mut wrong = self.violations.clone();
        let effects = self.effects;
        let success = self.outcomes.iter().find(|outcome| outcome.success);
        if self.owner.is_none() && effects > 0 {
            wrong.push(format!(
                "rule 1: {effects} effects of a key that no client sent, or that was settled and forgotten"
            ));
        }
        if effects > 1 && policy != Policy::Rerun {
            wrong.push(format!("rule 1: {effects} effects under {policy:?}"));
        }
        if let Some(success) = success
            && effects == 0
        {
            wrong.push(format!("rule 2: no effect, but the outcome {}", short(&success.bytes)));
        }
        wrong.iter().map(|line| format!("{key}: {line}")).collect()
    }
}

/// The beginning of an outcome, for people.
fn short(bytes: &Bytes) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    if bytes.len() > 80 { format!("{text:?}… of {} bytes", bytes.len()) } else { format!("{text:?}") }
}
