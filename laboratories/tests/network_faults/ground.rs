//! A server, its clients' history, and how a client goes about its operation over a bad network.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::client::answers;
use testkit::history::{History, Policy, Sent, Told};
use testkit::payment_server::{Server, Setup};
use testkit::proxy::{Link, Plan, Traffic};
use testkit::{Answer, Call, Connection};

use crate::client::ask;
use crate::wire::Protocol;

/// The pause of a client before another try, and the number of tries.
const PAUSE: Duration = Duration::from_millis(50);
const TRIES: usize = 1_000;
/// How long a connection without faults is used again. The server closes one that is idle for 10 seconds.
const KEPT: Duration = Duration::from_secs(5);

const AMOUNT: &str = "amount=1000";
const OTHER_AMOUNT: &str = "amount=9000";

/// A request under its key.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) key: String,
    pub(crate) call: Call,
    /// What it is called in the history.
    name: &'static str,
}

impl Operation {
    /// A charge that is found in the ledger by its key. Those of one source and one length of key have one length.
    pub(crate) fn new(key: impl Into<String>, source: &str) -> Self {
        let key = key.into();
        let mut call = Call::charge(&key, source);
        call.body.push_str(&format!("&description={key}"));
        Self { key, call, name: "a charge" }
    }

    /// Another request under the same key.
    pub(crate) fn other(&self) -> Self {
        let mut other = self.clone();
        other.call.body = other.call.body.replace(AMOUNT, OTHER_AMOUNT);
        other.name = "another charge";
        other
    }
}

/// Makes of what is sent again another request under the same key.
pub(crate) fn edit(plan: Plan) -> Plan {
    plan.edited(AMOUNT, OTHER_AMOUNT)
}

/// How far a request came, as far as the network knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arrived {
    /// Never whole: it must not run.
    No,
    /// Whole; but the server may have seen the connection's end first.
    Perhaps,
    /// The server has begun to answer it.
    Yes,
}

/// What came of one try.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) answer: Option<Answer>,
    pub(crate) arrived: Arrived,
}

impl Tried {
    fn is_settled(&self) -> bool {
        matches!(told(self.answer.as_ref()), Told::Outcome { .. })
    }
}

/// What was done to the network, and what it came to.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) connections: AtomicUsize,
    pub(crate) cuts: AtomicUsize,
    pub(crate) replays: AtomicUsize,
    /// Operations that had never arrived before the last try.
    pub(crate) unheard: AtomicUsize,
    /// Operations that had run before it.
    pub(crate) run: AtomicUsize,
    /// Refusals of another request under a key.
    pub(crate) reused: AtomicUsize,
}

pub(crate) fn count(number: &AtomicUsize) {
    number.fetch_add(1, Ordering::Relaxed);
}

/// A server, and all that its clients have seen.
pub(crate) struct Ground {
    pub(crate) server: Server,
    /// Nothing crashes here, so that nothing is ever interrupted: the policy that runs such again is held to the same
    /// rules.
    pub(crate) history: History,
    pub(crate) figures: Figures,
    /// Keys that may have an effect.
    asked: Mutex<HashSet<String>>,
    /// Keys that must not have an effect, though they may have an outcome.
    chargeless: Mutex<HashSet<String>>,
    /// How keys ended that were refused in the end.
    refused: Mutex<HashMap<String, String>>,
    /// Connections without faults, and when each had its last answer.
    good: Mutex<Vec<(Connection, Instant)>>,
    wrong: Mutex<Vec<String>>,
    /// Faults that did not come about.
    missed: Mutex<Vec<String>>,
    _directory: TempDir,
}

impl Ground {
    pub(crate) fn new(arguments: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self {
            server: Setup::new(&directory).with(arguments).start(),
            history: History::new(Policy::Refuse),
            figures: Figures::default(),
            asked: Mutex::default(),
            chargeless: Mutex::default(),
            refused: Mutex::default(),
            good: Mutex::default(),
            wrong: Mutex::default(),
            missed: Mutex::default(),
            _directory: directory,
        }
    }

    pub(crate) fn wrong(&self, line: String) {
        self.wrong.lock().unwrap().push(line);
    }

    /// From now on a charge under this key is a violation.
    pub(crate) fn must_not_charge(&self, key: &str) {
        self.chargeless.lock().unwrap().insert(key.to_owned());
    }

    pub(crate) async fn link(&self, plan: &Plan) -> Link {
        count(&self.figures.connections);
        Link::to(self.server.address, plan.clone()).await
    }

    pub(crate) fn sent(&self, operation: &Operation) -> Sent {
        self.asked.lock().unwrap().insert(operation.key.clone());
        self.history.sent(&operation.key, operation.name)
    }

    /// One try over one connection, until that has ended. Its answer goes into the history.
    pub(crate) async fn attempt(&self, operation: &Operation, protocol: Protocol, plan: &Plan) -> Tried {
        let sent = self.sent(operation);
        let link = self.link(plan).await;
        let answer = ask(&link, &operation.call, protocol).await;
        self.history.answered(sent, told(answer.as_ref()));
        let arrived = self.over(&link, operation, protocol, answer.is_some()).await;
        Tried { answer, arrived }
    }

    /// Waits for the end of a connection whose client is gone, and for the answer to what was sent again.
    pub(crate) async fn over(
        &self,
        link: &Link,
        operation: &Operation,
        protocol: Protocol,
        is_answered: bool,
    ) -> Arrived {
        link.is_over().await;
        self.count_cut(link);
        if link.plan.cuts() && !is_answered && !link.traffic().is_cut {
            self.missed.lock().unwrap().push(format!("{}: {:?}", operation.key, link.plan));
        }
        let arrived = arrived(&link.traffic(), protocol, &operation.call);
        if link.plan.is_sent_again() && protocol.has_request(&link.traffic().request.read, &operation.call) {
            return arrived.max(self.copy_over(link, operation, protocol).await);
        }
        arrived
    }

    pub(crate) fn count_cut(&self, link: &Link) {
        if link.traffic().is_cut {
            count(&self.figures.cuts);
        }
    }

    /// Waits for the answer to a whole request that was sent again.
    async fn copy_over(&self, link: &Link, operation: &Operation, protocol: Protocol) -> Arrived {
        count(&self.figures.connections);
        count(&self.figures.replays);
        let copy = if link.plan.is_edited() { operation.other() } else { operation.clone() };
        let sent = self.sent(&copy);
        // What a client took back is taken back in the copy, too.
        let is_taken_back = protocol.is_taken_back(&link.traffic().request.read);
        let is_answered = |traffic: &Traffic| protocol.has_answer(&traffic.again.read);
        let is_over = |traffic: &Traffic| is_taken_back || is_answered(traffic) || traffic.again.ended;
        link.sees("the end of what was sent again", is_over).await;
        // Who would read HTTP/2 here needed a decoder of its own; the ledger has the effects of that, too.
        let answers = if protocol == Protocol::Http2 { Vec::new() } else { answers(&link.traffic().again.read) };
        self.history.answered(sent, told(answers.first()));
        if !is_answered(&link.traffic()) {
            if !is_taken_back {
                self.wrong(format!("{}: no answer to what was sent again: {:?}", operation.key, link.plan));
            }
            return Arrived::Perhaps;
        }
        if !link.plan.is_edited() {
            return Arrived::Yes;
        }
        match answers.first().map(Answer::refusal) {
            Some((422, slug)) if slug == "key-reused" => count(&self.figures.reused),
            None => {}
            Some(other) => self.wrong(format!("{}: {other:?} to another request: {:?}", operation.key, link.plan)),
        }
        Arrived::No
    }

    /// A client with its operation, over these connections, one after the other, until it has an outcome.
    pub(crate) async fn try_all(&self, operation: &Operation, tries: &[(Protocol, Plan)]) -> Arrived {
        let mut arrived = Arrived::No;
        for (protocol, plan) in tries {
            let tried = self.attempt(operation, *protocol, plan).await;
            arrived = arrived.max(tried.arrived);
            if tried.is_settled() {
                return Arrived::Yes;
            }
        }
        arrived
    }

    /// The same, and then over good connections, to get the outcome, or to see that it has not changed.
    pub(crate) async fn operate(&self, operation: &Operation, tries: &[(Protocol, Plan)]) {
        let arrived = self.try_all(operation, tries).await;
        self.conclude(operation, arrived, &tries).await;
    }

    pub(crate) async fn conclude(&self, operation: &Operation, arrived: Arrived, tries: &(dyn Debug + Sync)) {
        let Some(last) = self.settle(operation).await else { return };
        match (arrived, last.is_replay()) {
            (Arrived::No, false) => count(&self.figures.unheard),
            (Arrived::Yes, true) => count(&self.figures.run),
            (Arrived::Perhaps, _) => {}
            (Arrived::No, true) => self.wrong(format!("{}: ran, but was never sent whole: {tries:?}", operation.key)),
            (Arrived::Yes, false) => self.wrong(format!("{}: ran again: {tries:?}", operation.key)),
        }
    }

    /// Tries without the network until there is something else than "come again". Gives an outcome.
    pub(crate) async fn settle(&self, operation: &Operation) -> Option<Answer> {
        for _ in 0..TRIES {
            let sent = self.sent(operation);
            let answer = self.undisturbed(&operation.call).await;
            self.history.answered(sent, told(answer.as_ref()));
            match told(answer.as_ref()) {
                Told::Outcome { .. } => return answer,
                Told::Refused(slug) if slug == "in-flight" => tokio::time::sleep(PAUSE).await,
                Told::Refused(slug) => {
                    self.refused.lock().unwrap().insert(operation.key.clone(), slug);
                    return None;
                }
                Told::Nothing => break,
            }
        }
        self.wrong(format!("{}: no answer over a good connection", operation.key));
        None
    }

    /// What the server says over a connection without faults, which is kept.
    pub(crate) async fn undisturbed(&self, call: &Call) -> Option<Answer> {
        let kept = self.good.lock().unwrap().pop();
        let mut connection = match kept.filter(|(_, since)| since.elapsed() < KEPT) {
            Some((connection, _)) => connection,
            None => {
                count(&self.figures.connections);
                Connection::http1(self.server.address).await.ok()?
            }
        };
        let answer = connection.send(call).await.ok()?;
        // A server that did not read all of a request takes no other one.
        if answer.status != 413 {
            self.good.lock().unwrap().push((connection, Instant::now()));
        }
        Some(answer)
    }

    /// Asserts that the network was as bad as it was planned, and that it showed what it could.
    pub(crate) fn assert_shown(&self) {
        assert_eq!(*self.missed.lock().unwrap(), [""; 0], "connections that were not cut");
        let Figures { cuts, replays, unheard, run, reused, .. } = &self.figures;
        for (what, number) in
            [("cut", cuts), ("sent again", replays), ("unheard", unheard), ("run", run), ("reused", reused)]
        {
            assert!(number.load(Ordering::Relaxed) > 0, "nothing was {what}: {:?}", self.figures);
        }
    }

    /// Reads the ledger, and says all that is wrong.
    pub(crate) async fn judge(&self) -> Vec<String> {
        let mut wrong = self.wrong.lock().unwrap().clone();
        let asked = &*self.asked.lock().unwrap() - &*self.chargeless.lock().unwrap();
        for charge in self.server.charges().await {
            match charge["description"].as_str() {
                Some(key) if asked.contains(key) => self.history.effect(key),
                _ => wrong.push(format!("a charge that no request asked for: {charge}")),
            }
        }
        wrong.extend(self.history.violations());
        let refused = self.refused.lock().unwrap().clone();
        wrong.extend(self.history.unsettled().iter().map(|key| format!("{key}: no outcome: {:?}", refused.get(key))));
        let interrupted = self.server.interrupted().await;
        wrong.extend(interrupted.iter().map(|(id, _)| format!("{id}: interrupted, but nothing crashed")));
        wrong
    }
}

pub(crate) fn told(answer: Option<&Answer>) -> Told {
    answer.map_or(Told::Nothing, Told::of)
}

fn arrived(traffic: &Traffic, protocol: Protocol, call: &Call) -> Arrived {
    let request = &traffic.request;
    if !protocol.has_request(&request.read[..request.forwarded], call) {
        Arrived::No
    } else if protocol.has_answer_begun(&traffic.response.read) {
        Arrived::Yes
    } else {
        Arrived::Perhaps
    }
}
