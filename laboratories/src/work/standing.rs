//! The state of each key at a power cut, from the notes up to then, and so the answers that a retry may get.

use std::collections::BTreeMap;

use testkit::history::{ClientAnswer, History, Policy, Sent};

use super::key::{self, Kind, RETENTION};
use super::notes::{Note, Said};

/// The state of a key, as far as its answers show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not sent yet, or its last run was answered as released.
    Free,
    /// Sent, and not answered.
    Sent,
    /// Its handler has begun: the store reported its claim as durable.
    Began,
    /// An outcome was given.
    Answered,
    /// An outcome was given that could not be recorded: it is known until the process ends.
    Unsaved,
    /// The answer was that it was interrupted.
    Interrupted,
    /// It was interrupted and is being settled.
    Settling { forget: bool },
    /// Done, and not replayable.
    Consumed,
}

#[derive(Debug, Clone)]
pub struct OfKey {
    pub standing: Standing,
    /// The earliest time at which an outcome may have been recorded; `None`: there was none.
    since: Option<u64>,
    /// The time of the last note about it.
    heard: u64,
    pub took_place: bool,
    /// The durable entry in the application's own table.
    pub entry: Option<u64>,
}

impl OfKey {
    fn new(now: u64) -> Self {
        Self { standing: Standing::Free, since: None, heard: now, took_place: false, entry: None }
    }

    /// Returns whether the knowledge about it still counts.
    fn is_live(&self, now: u64) -> bool {
        match (self.since, self.standing) {
            (Some(since), _) => since + RETENTION > now,
            (None, Standing::Free) => self.heard + RETENTION > now,
            (None, _) => true,
        }
    }

    /// Returns whether a retry may run, after a power cut.
    pub fn may_run(&self, key: u64) -> bool {
        match self.standing {
            Standing::Free | Standing::Sent | Standing::Settling { forget: true } => true,
            Standing::Began => key::kind(key).frees() || self.may_be_found_not_to_have_run(key),
            Standing::Interrupted => self.may_be_found_not_to_have_run(key),
            Standing::Unsaved => !key::claims(key),
            _ => false,
        }
    }

    /// Returns whether the application, when it is asked, may answer that it may run.
    fn may_be_found_not_to_have_run(&self, key: u64) -> bool {
        key::policy(key) == Policy::Reconcile && !self.took_place
    }

    /// Returns whether a retry may get `outcome-unknown`.
    pub fn may_be_interrupted(&self, key: u64) -> bool {
        match self.standing {
            // The application is asked now, and knows.
            _ if key::policy(key) == Policy::Reconcile => false,
            Standing::Sent | Standing::Began | Standing::Unsaved => key::claims(key),
            Standing::Interrupted | Standing::Settling { .. } => true,
            Standing::Free | Standing::Answered | Standing::Consumed => false,
        }
    }

    fn hears(&mut self, key: u64, now: u64, note: &Note) {
        self.heard = now;
        match note {
            Note::Sent { other: false, .. } if self.standing == Standing::Free => {
                self.standing = Standing::Sent;
                self.since = Some(now);
            }
            Note::Began(_) if key::claims(key) => {
                self.standing = Standing::Began;
                // This also counts if it runs again, which the application allowed.
                self.since = self.since.or(Some(now));
            }
            Note::Effect(_) => self.took_place = true,
            Note::Synced { value, .. } => self.entry = Some(*value),
            Note::Told { said, recorded, .. } => self.told(key, said, *recorded),
            Note::Settling { outcome, .. } => {
                self.standing = Standing::Settling { forget: outcome.is_none() };
                self.since = Some(now);
            }
            Note::Settled { outcome: Some(_), .. } => self.standing = Standing::Answered,
            Note::Settled { outcome: None, .. } => (self.standing, self.since) = (Standing::Free, None),
            _ => {}
        }
    }
}

impl OfKey {
    fn told(&mut self, key: u64, said: &Said, recorded: bool) {
        match said {
            Said::Outcome(_) if recorded => self.standing = Standing::Answered,
            Said::Outcome(_) => self.standing = Standing::Unsaved,
            Said::Freed if recorded => (self.standing, self.since) = (Standing::Free, None),
            // Its record may have either state.
            Said::Freed => self.standing = Standing::Sent,
            Said::Refused(name) if name == "outcome-unknown" && key::claims(key) => {
                (self.standing, self.since) = (Standing::Interrupted, None);
            }
            Said::Refused(name) if name == "not-replayable" => self.standing = Standing::Consumed,
            Said::Refused(_) => {}
        }
    }
}

/// All keys whose time is not over.
#[derive(Debug, Clone)]
pub struct Standings {
    pub keys: BTreeMap<u64, OfKey>,
    pub now: u64,
    /// The first key that was never sent.
    pub next: u64,
    pub opens: bool,
}

impl Standings {
    pub fn after<'a>(start: u64, notes: impl Iterator<Item = &'a Note>) -> Self {
        let mut standings = Self { keys: BTreeMap::new(), now: start, next: 0, opens: false };
        notes.for_each(|note| standings.hear(note));
        let now = standings.now;
        standings.keys.retain(|_, of_key| of_key.is_live(now));
        standings
    }

    fn hear(&mut self, note: &Note) {
        match note {
            Note::Clock(now) => self.now = *now,
            Note::Opening => self.opens = true,
            Note::Opened => self.opens = false,
            _ => {}
        }
        let Some(key) = key_of(note) else { return };
        self.next = self.next.max(key + 1);
        let now = self.now;
        self.keys.entry(key).or_insert_with(|| OfKey::new(now)).hears(key, now, note);
    }
}

pub fn key_of(note: &Note) -> Option<u64> {
    match note {
        Note::Clock(_) | Note::Opening | Note::Opened | Note::Sweeping | Note::Swept | Note::Found(_) => None,
        Note::Sent { key, .. } | Note::Told { key, .. } | Note::Settling { key, .. } | Note::Settled { key, .. } => {
            Some(*key)
        }
        Note::Synced { key, .. } | Note::Began(key) | Note::Effect(key) => Some(*key),
    }
}

/// The checker's histories, one for each policy.
#[derive(Debug, Clone)]
pub struct Histories {
    refuse: History,
    reconcile: History,
    rerun: History,
    atomic: History,
}

impl Histories {
    /// The histories of the keys that are still of interest, from the notes.
    pub fn of<'a>(standings: &Standings, notes: impl Iterator<Item = &'a Note>) -> Self {
        let policies = [Policy::Refuse, Policy::Reconcile, Policy::Rerun, Policy::Atomic];
        let [refuse, reconcile, rerun, atomic] = policies.map(History::new);
        let histories = Self { refuse, reconcile, rerun, atomic };
        let mut tickets = BTreeMap::new();
        let mut settling = BTreeMap::new();
        for note in notes {
            if let Note::Opening = note {
                histories.crashed();
            }
            let Some(key) = key_of(note).filter(|key| standings.keys.contains_key(key)) else { continue };
            match note {
                Note::Sent { ticket, other, .. } => drop(tickets.insert(*ticket, histories.sent(key, *other))),
                Note::Told { ticket, said, recorded, .. } => {
                    let sent = tickets.remove(ticket).expect("who is told something has sent something");
                    histories.answered(key, sent, said, *recorded);
                }
                Note::Effect(_) => histories.of_key(key).effect(&key.to_string()),
                // An operator counts as a client that brings the answer.
                Note::Settling { outcome: Some(_), .. } => {
                    settling.insert(key, histories.sent(key, false));
                }
                Note::Settled { outcome: Some(outcome), .. } => {
                    let sent = settling.remove(&key).expect("it was being settled");
                    histories.answered(key, sent, &Said::Outcome(outcome.clone()), true);
                }
                _ => {}
            }
        }
        histories.crashed();
        histories
    }

    fn all(&self) -> [&History; 4] {
        [&self.refuse, &self.reconcile, &self.rerun, &self.atomic]
    }

    fn of_key(&self, key: u64) -> &History {
        match key::policy(key) {
            Policy::Refuse => &self.refuse,
            Policy::Reconcile => &self.reconcile,
            Policy::Rerun => &self.rerun,
            Policy::Atomic => &self.atomic,
        }
    }

    pub fn sent(&self, key: u64, other: bool) -> Sent {
        self.of_key(key).sent(&key.to_string(), if other { "another" } else { "its own" })
    }

    pub fn answered(&self, key: u64, sent: Sent, said: &Said, recorded: bool) {
        let told = match said {
            Said::Outcome(digest) => ClientAnswer::outcome(digest.clone()),
            Said::Freed => ClientAnswer::refused("freed"),
            Said::Refused(name) => ClientAnswer::refused(name),
        };
        self.of_key(key).answered(sent, if recorded { told } else { told.unsaved() });
    }

    pub fn effect(&self, key: u64) {
        self.of_key(key).effect(&key.to_string());
    }

    fn crashed(&self) {
        self.all().iter().for_each(|history| history.crashed());
    }

    pub fn violations(&self) -> Vec<String> {
        self.all().iter().flat_map(|history| history.violations()).collect()
    }

    pub fn acknowledged(&self) -> usize {
        self.all().iter().map(|history| history.acknowledged()).sum()
    }
}

/// Returns whether a retry of `key` may get `not-replayable`.
pub fn may_be_consumed(key: u64) -> bool {
    key::kind(key) == Kind::Consumed
}
