//! The requests, answers and effects of one execution, and the checks of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use testkit::history::{ClientAnswer, History};

use crate::plan::{Ending, Fate, Knows, Plan};

/// A ledger that all its writers share.
#[derive(Clone, Debug)]
pub struct Ledger {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Debug)]
struct Pages {
    endings: std::vec::IntoIter<Ending>,
    commits: bool,
    fates: std::vec::IntoIter<Fate>,
    knows: std::vec::IntoIter<Knows>,
    events: Vec<Event>,
    tickets: usize,
    begun: usize,
    /// Handlers under way, by key.
    inside: BTreeMap<&'static str, usize>,
    effects: Vec<Effect>,
    /// The outcomes of transactions that the writer reported as durable.
    durable: BTreeSet<Bytes>,
    drained: bool,
    wrong: Vec<String>,
    seen: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Effect {
    key: &'static str,
    request: &'static str,
    outcome: Bytes,
}

#[derive(Debug, Clone)]
enum Event {
    Sent { ticket: usize, key: &'static str, request: &'static str },
    Answered { ticket: usize, told: ClientAnswer, replayed: bool },
    Effect { key: &'static str },
}

/// A handler, from its first step to its drop.
#[derive(Debug)]
pub struct Inside {
    ledger: Ledger,
    key: &'static str,
}

impl Drop for Inside {
    fn drop(&mut self) {
        *self.ledger.write().inside.entry(self.key).or_default() -= 1;
    }
}

impl Ledger {
    pub fn new(plan: &Plan) -> Self {
        let endings = plan.before.into_iter().chain(plan.endings.iter().copied()).collect::<Vec<_>>().into_iter();
        let pages = Pages {
            endings,
            commits: plan.commits,
            fates: plan.fates.clone().into_iter(),
            knows: plan.knows.clone().into_iter(),
            events: Vec::new(),
            tickets: 0,
            begun: 0,
            inside: BTreeMap::new(),
            effects: Vec::new(),
            durable: BTreeSet::new(),
            drained: false,
            wrong: Vec::new(),
            seen: BTreeSet::new(),
        };
        Self { pages: Arc::new(Mutex::new(pages)) }
    }

    // No other task runs while this is held: the scheduler does not know this lock, and no code under it calls a hook.
    fn write(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("nothing panics under this lock")
    }

    /// Notes that a request is sent. Returns its ticket.
    pub fn sent(&self, key: &'static str, request: &'static str) -> usize {
        let mut pages = self.write();
        pages.tickets += 1;
        let ticket = pages.tickets;
        pages.events.push(Event::Sent { ticket, key, request });
        ticket
    }

    /// Notes that it is answered.
    pub fn answered(&self, ticket: usize, told: ClientAnswer, replayed: bool) {
        let mut pages = self.write();
        if let ClientAnswer::Refused(slug) = &told {
            pages.seen.insert(slug.clone());
        }
        if let (true, ClientAnswer::Outcome { bytes, .. }) = (pages.commits, &told)
            && !pages.durable.contains(bytes)
        {
            pages.wrong.push(format!("{bytes:?} was answered, and was not reported as durable"));
        }
        pages.events.push(Event::Answered { ticket, told, replayed });
    }

    /// Notes that a handler begins. Returns how it is to end.
    pub fn begin(&self, key: &'static str) -> (Inside, Ending) {
        let mut pages = self.write();
        let inside = pages.inside.entry(key).or_default();
        *inside += 1;
        if *inside > 1 {
            pages.wrong.push(format!("{key}: two handlers at the same time"));
        }
        if pages.drained {
            pages.wrong.push(format!("{key}: a handler begins after it was said that no run is left"));
        }
        pages.begun += 1;
        let ending = pages.endings.next().unwrap_or(Ending::Outcome);
        (Inside { ledger: self.clone(), key }, ending)
    }

    /// Notes that it takes effect. Returns its outcome.
    pub fn effect(&self, key: &'static str, request: &'static str) -> Bytes {
        let outcome = Bytes::from(format!("{request}#{}", self.write().effects.len() + 1));
        self.takes_effect(key, request, outcome.clone());
        outcome
    }

    /// Notes that it takes effect with this outcome.
    pub fn takes_effect(&self, key: &'static str, request: &'static str, outcome: Bytes) {
        let mut pages = self.write();
        pages.effects.push(Effect { key, request, outcome });
        pages.events.push(Event::Effect { key });
    }

    /// Notes that the writer reports this outcome as durable.
    pub fn durable(&self, outcome: Bytes) {
        self.write().durable.insert(outcome);
    }

    /// The fate of the next transaction.
    pub fn fate(&self) -> Fate {
        self.write().fates.next().unwrap_or(Fate::Committed)
    }

    /// The request whose effect took place for `key`, and its outcome: the truth.
    pub fn look_up(&self, key: &str) -> Option<(&'static str, Bytes)> {
        let pages = self.write();
        let effect = pages.effects.iter().find(|effect| effect.key == key);
        effect.map(|effect| (effect.request, effect.outcome.clone()))
    }

    /// The answer that the application gives instead of the truth, when it is asked.
    pub fn knows(&self) -> Option<Knows> {
        self.write().knows.next()
    }

    /// Notes the report that no run is left, and that none will begin.
    pub fn drained(&self) {
        self.write().drained = true;
    }

    pub fn begun(&self) -> usize {
        self.write().begun
    }

    pub fn wrong(&self, line: impl Into<String>) {
        self.write().wrong.push(line.into());
    }

    /// Notes that this execution has shown something.
    pub fn see(&self, what: &str) {
        self.write().seen.insert(what.to_owned());
    }

    /// The sights that this execution has shown.
    pub fn seen(&self) -> BTreeSet<String> {
        let pages = self.write();
        let mut seen = pages.seen.clone();
        seen.extend(pages.shown().map(str::to_owned));
        seen
    }

    /// The violations, one line each.
    pub fn violations(&self, plan: &Plan) -> Vec<String> {
        let pages = self.write();
        let mut wrong = pages.wrong.clone();
        wrong.extend(pages.history(plan).violations());
        wrong.extend(pages.first_hand());
        wrong.extend(pages.refused(plan));
        wrong
    }
}

impl Pages {
    /// The events, for the checker of all laboratories.
    fn history(&self, plan: &Plan) -> History {
        let history = History::new(plan.policy);
        // The checker takes the first request that is sent as the owner of the key. Here the first one that runs is the
        // owner: of two that are sent at the same time, either may come first.
        for effect in &self.effects {
            drop(history.sent(effect.key, effect.request));
        }
        let mut tickets = BTreeMap::new();
        for event in self.events.iter().cloned() {
            match event {
                Event::Sent { ticket, key, request } => {
                    tickets.insert(ticket, history.sent(key, request));
                }
                Event::Answered { ticket, told, .. } => {
                    history.answered(tickets.remove(&ticket).expect("it was sent, and answered once"), told);
                }
                Event::Effect { key } => history.effect(key),
            }
        }
        history
    }

    /// The wrong outcomes. Each outcome is of an effect of that very request, and only one client gets it from its own
    /// run.
    fn first_hand(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut first = BTreeSet::new();
        for (key, request, bytes, replayed) in self.outcomes() {
            let mut own = self.effects.iter().filter(|effect| effect.key == key && effect.request == request);
            if !own.any(|effect| effect.outcome == bytes) {
                wrong.push(format!("{key}: {request} got {bytes:?}, which is no outcome of its own"));
            }
            if !replayed && !first.insert(bytes) {
                wrong.push(format!("{key}: two got {bytes:?} as the outcome of their own run"));
            }
        }
        wrong
    }

    /// The wrong refusals: those without a cause, and those that do not say that another request has the key.
    fn refused(&self, plan: &Plan) -> Vec<String> {
        let mut wrong = Vec::new();
        for (key, request, slug) in self.refusals() {
            let owner = self.effects.iter().find(|effect| effect.key == key);
            let is_stranger = owner.is_some_and(|owner| owner.request != request);
            if !plan.may_refuse(slug) || (is_stranger && slug == "in-flight" && !plan.may_wait_in_vain()) {
                wrong.push(format!("{key}: {request} refused as {slug}"));
            }
        }
        wrong
    }

    /// The refusals: key, request, and reason.
    fn refusals(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        self.events.iter().filter_map(|event| {
            let Event::Answered { ticket, told: ClientAnswer::Refused(slug), .. } = event else { return None };
            let (_, key, request) = self.request(*ticket);
            Some((key, request, slug.as_str()))
        })
    }

    /// The outcomes: key, request, bytes, and whether it was replayed.
    fn outcomes(&self) -> impl Iterator<Item = (&'static str, &'static str, &Bytes, bool)> {
        self.events.iter().filter_map(|event| {
            let Event::Answered { ticket, told: ClientAnswer::Outcome { bytes, .. }, replayed } = event else {
                return None;
            };
            let (_, key, request) = self.request(*ticket);
            Some((key, request, bytes, *replayed))
        })
    }

    /// The position at which the request was sent, its key and its name.
    fn request(&self, ticket: usize) -> (usize, &'static str, &'static str) {
        let mut sent = self.events.iter().enumerate().filter_map(|(at, event)| match *event {
            Event::Sent { ticket: sent, key, request } if sent == ticket => Some((at, key, request)),
            _ => None,
        });
        sent.next().expect("what is answered was sent")
    }

    /// For each replay, whether its outcome was waited for ("joined") or found.
    fn shown(&self) -> impl Iterator<Item = &'static str> {
        let effect =
            |key: &str| self.events.iter().position(|event| matches!(event, Event::Effect { key: of } if *of == key));
        let replays = self.events.iter().filter_map(|event| match event {
            Event::Answered { ticket, told: ClientAnswer::Outcome { .. }, replayed: true } => {
                Some(self.request(*ticket))
            }
            _ => None,
        });
        replays.map(move |(sent, key, _)| if effect(key).is_some_and(|at| at < sent) { "found" } else { "joined" })
    }
}
