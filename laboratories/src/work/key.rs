//! The operations of the workload. Each is a number, from which everything else follows, so that a retry does the same
//! as the first request.

use testkit::Dice;
use testkit::history::Policy;
use tower_idempotency::{Fingerprint, Key, RecordId};

/// The time for which outcomes are kept, and the time by which the clock moves in one round, in milliseconds. A window
/// moves over the keys.
pub const RETENTION: u64 = 10_000;
pub const ROUND: u64 = 1_000;

/// The behaviour of an operation's handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Takes effect and answers.
    Done,
    /// Does the same, with an entry in the application's own table, synced before it answers.
    Ledger,
    /// Has no effect in every other run, and reports that.
    Released,
    /// Takes effect and fails: its end is unknown.
    Cut,
    /// Has no effect in every other run, and fails: its end is unknown. The operator or the application finds out.
    Forgotten,
    /// Takes effect with an answer that can't be stored.
    Consumed,
}

impl Kind {
    /// Returns whether the key may be free after a run without an answer.
    pub fn frees(self) -> bool {
        self == Self::Released
    }
}

fn dice(key: u64, of: u64) -> Dice {
    Dice::of(&[key, of])
}

pub fn policy(key: u64) -> Policy {
    match dice(key, 1).below(100) {
        0..=39 => Policy::Refuse,
        40..=54 => Policy::Reconcile,
        55..=79 => Policy::Rerun,
        _ => Policy::Atomic,
    }
}

/// Returns whether a run's claim is durable before its handler starts, and a run that was interrupted is found again.
pub fn claims(key: u64) -> bool {
    matches!(policy(key), Policy::Refuse | Policy::Reconcile)
}

pub fn kind(key: u64) -> Kind {
    let policy = policy(key);
    match dice(key, 2).below(100) {
        0..=5 => Kind::Released,
        6..=11 if policy != Policy::Atomic => Kind::Ledger,
        12..=15 if policy != Policy::Atomic => Kind::Cut,
        16..=18 if claims(key) => Kind::Forgotten,
        19..=20 if policy == Policy::Refuse => Kind::Consumed,
        _ => Kind::Done,
    }
}

/// Returns whether this run does the thing that its kind does in every other run.
pub fn turns(key: u64, fence: u64) -> bool {
    Dice::of(&[key, fence, 3]).percent(50)
}

/// The answer of a run: it has the same length in every run, and other characters.
pub fn outcome(key: u64, fence: u64) -> String {
    let mut size = dice(key, 4);
    let most = match size.below(1_000) {
        // Sometimes several long ones come together: many of sled's segments between two syncs.
        _ if key / 16 % 128 == 20 => 1 << 20,
        0..=599 => 200,
        600..=799 => 3_000,
        800..=949 => 16_000,
        950..=997 => 100_000,
        _ => 1 << 20,
    };
    // This is the most that a transaction takes.
    let most = if policy(key) == Policy::Atomic { most.min(100_000) } else { most };
    let length = 16 + size.below(most - 16);
    let mut text = format!("{key:x}:{fence:x}:");
    let mut content = Dice::of(&[key, fence]);
    while text.len() < length {
        text.push_str(&format!("{:016x}", content.roll()));
    }
    text.truncate(length);
    text
}

/// The digest of an outcome in the notes.
pub fn digest(text: &str) -> String {
    format!("{} bytes {}", text.len(), &blake3::hash(text.as_bytes()).to_hex()[..16])
}

pub fn id(key: u64) -> RecordId {
    RecordId::new(None, &Key::new(&format!("key-{key}")).expect("a valid key"))
}

pub fn fingerprint(key: u64, other: bool) -> Fingerprint {
    Fingerprint::of(format!("request {key}{}", if other { " another" } else { "" }).as_bytes())
}
