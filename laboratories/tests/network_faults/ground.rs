//! A server, its clients' history, and the way of a client's operation over a bad network.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::client::answers;
use testkit::history::{ClientAnswer, History, Policy, Sent};
use testkit::payment_server::{Server, Setup};
use testkit::proxy::{Link, Plan, Traffic};
use testkit::{Answer, Call, Connection};

use crate::client::ask;
use crate::wire::Protocol;

/// The pause of a client before another try, and the number of tries.
const PAUSE: Duration = Duration::from_millis(50);
const TRIES: usize = 1_000;
/// The time for which a connection without faults is used again. The server closes one that is idle for 10 seconds.
const KEPT: Duration = Duration::from_secs(5);

const AMOUNT: &str = "amount=1000";
const OTHER_AMOUNT: &str = "amount=9000";

/// A request under its key.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) key: String,
    pub(crate) call: Call,
    /// The request's name in the history.
    name: &'static str,
}

impl Operation {
    /// Returns a charge that the ledger has under its key. Charges of one source and one length of key have one length.
    pub(crate) fn new(key: impl Into<String>, source: &str) -> Self {
        let key = key.into();
        Self { call: Call::charge_of(&key, source), key, name: "a charge" }
    }

    /// Returns another request with the same key.
    pub(crate) fn other(&self) -> Self {
        let mut other = self.clone();
        other.call.body = other.call.body.replace(AMOUNT, OTHER_AMOUNT);
        other.name = "another charge";
        other
    }
}

/// Returns a plan in which the request that is sent again becomes another request with the same key.
pub(crate) fn edit(plan: Plan) -> Plan {
    plan.edited(AMOUNT, OTHER_AMOUNT)
}

/// The progress of a request, as far as the network knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arrived {
    /// The request never arrived whole: it must not run.
    No,
    /// The request arrived whole, but the server may have seen the connection's end first.
    Perhaps,
    /// The server has begun to answer the request.
    Yes,
}

/// The result of one try.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) answer: Option<Answer>,
    pub(crate) arrived: Arrived,
}

impl Tried {
    fn is_settled(&self) -> bool {
        matches!(told(self.answer.as_ref()), ClientAnswer::Outcome { .. })
    }
}

/// The faults of the network, and their results.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) connections: AtomicUsize,
    pub(crate) cuts: AtomicUsize,
    pub(crate) replays: AtomicUsize,
    /// The operations that had never arrived before the last try.
    pub(crate) unheard: AtomicUsize,
    /// The operations that had run before the last try.
    pub(crate) run: AtomicUsize,
    /// The refusals of another request with a used key.
    pub(crate) reused: AtomicUsize,
}

pub(crate) fn count(number: &AtomicUsize) {
    number.fetch_add(1, Ordering::Relaxed);
}

/// A server, and all that its clients have seen.
pub(crate) struct Ground {
    pub(crate) server: Server,
    /// The history. Nothing crashes here, so no run is ever interrupted, and the policy `rerun` must keep the same
    /// rules as `refuse`.
    pub(crate) history: History,
    pub(crate) figures: Figures,
    /// The keys that may have an effect.
    asked: Mutex<HashSet<String>>,
    /// The refusals of the keys that ended without an outcome.
    refused: Mutex<HashMap<String, String>>,
    /// The connections without faults, and the time of the last answer on each.
    good: Mutex<Vec<(Connection, Instant)>>,
    wrong: Mutex<Vec<String>>,
    /// The faults that did not come about.
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

    pub(crate) async fn link(&self, plan: &Plan) -> Link {
        count(&self.figures.connections);
        Link::to(self.server.address, plan.clone()).await
    }

    pub(crate) fn sent(&self, operation: &Operation) -> Sent {
        self.asked.lock().unwrap().insert(operation.key.clone());
        self.history.sent(&operation.key, operation.name)
    }

    /// Tries once over one connection, until the connection has ended. The answer goes into the history.
    pub(crate) async fn attempt(&self, operation: &Operation, protocol: Protocol, plan: &Plan) -> Tried {
        let sent = self.sent(operation);
        let link = self.link(plan).await;
        let answer = ask(&link, &operation.call, protocol).await;
        self.history.answered(sent, told(answer.as_ref()));
        let arrived = self.over(&link, operation, protocol, answer.is_some()).await;
        Tried { answer, arrived }
    }

    /// Waits for the end of a connection whose client is gone, and for the answer to the request that was sent again.
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
        // A request that a client cancelled is cancelled in the copy, too.
        let is_taken_back = protocol.is_taken_back(&link.traffic().request.read);
        let is_answered = |traffic: &Traffic| protocol.has_answer(&traffic.again.read);
        let is_over = |traffic: &Traffic| is_taken_back || is_answered(traffic) || traffic.again.ended;
        link.sees("the end of what was sent again", is_over).await;
        // HTTP/2 answers would need a decoder here; the ledger has the effects of those requests, too.
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

    /// Sends a client's operation over these connections, one after the other, until it has an outcome.
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

    /// Does the same, and then sends it over good connections, to get the outcome or to check that it has not changed.
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

    /// Tries without a bad network until the answer is not "come again". Returns the outcome, or `None` if there is
    /// none.
    pub(crate) async fn settle(&self, operation: &Operation) -> Option<Answer> {
        for _ in 0..TRIES {
            let sent = self.sent(operation);
            let answer = self.undisturbed(&operation.call).await;
            self.history.answered(sent, told(answer.as_ref()));
            match told(answer.as_ref()) {
                ClientAnswer::Outcome { .. } => return answer,
                ClientAnswer::Refused(slug) if slug == "in-flight" => tokio::time::sleep(PAUSE).await,
                ClientAnswer::Refused(slug) => {
                    self.refused.lock().unwrap().insert(operation.key.clone(), slug);
                    return None;
                }
                ClientAnswer::Nothing => break,
            }
        }
        self.wrong(format!("{}: no answer over a good connection", operation.key));
        None
    }

    /// Returns the server's answer over a connection without faults, and keeps the connection.
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

    /// Asserts that the network had all the planned faults, and that these showed what they could.
    pub(crate) fn assert_shown(&self) {
        assert_eq!(*self.missed.lock().unwrap(), [""; 0], "connections that were not cut");
        let Figures { cuts, replays, unheard, run, reused, .. } = &self.figures;
        for (what, number) in
            [("cut", cuts), ("sent again", replays), ("unheard", unheard), ("run", run), ("reused", reused)]
        {
            assert!(number.load(Ordering::Relaxed) > 0, "nothing was {what}: {:?}", self.figures);
        }
    }

    /// Reads the ledger, and returns all violations.
    pub(crate) async fn judge(&self) -> Vec<String> {
        let mut wrong = self.wrong.lock().unwrap().clone();
        let asked = self.asked.lock().unwrap().clone();
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
        wrong.extend(interrupted.iter().map(|listed| format!("{}: interrupted, but nothing crashed", listed.id)));
        wrong
    }
}

pub(crate) fn told(answer: Option<&Answer>) -> ClientAnswer {
    answer.map_or(ClientAnswer::Nothing, ClientAnswer::of)
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
