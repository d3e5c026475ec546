//! A client with an operation: it sends the request, and repeats it while the answers ask for that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::history::{History, Told};
use testkit::{Answer, Call};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::balancer::{Balancer, PATIENCE};
use crate::dice::{below, time_below};
use crate::fleet::Fleet;

/// The longest time between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// How long is long, for a client in haste.
const HASTE: Duration = Duration::from_secs(4);
/// After how long a key counts as stuck.
const STUCK: Duration = Duration::from_secs(150);
/// What is charged, unless it is something else; and what takes a while before it is charged.
pub(crate) const VISA: &str = "tok_visa";
pub(crate) const SLOW: &str = "tok_slow";

/// A charge that is found in the ledgers by its key.
pub(crate) fn charge(key: &str, source: &str) -> Call {
    let mut call = Call::charge(key, source);
    call.body.push_str(&format!("&description={key}"));
    call
}

/// What all clients of a run share. Clones share it too.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) balancer: Balancer,
    pub(crate) history: History,
    stuck_after: Duration,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    outcomes: AtomicUsize,
    replays: AtomicUsize,
    /// Refusals, by their problems; without a name: no answer came.
    refused: Mutex<BTreeMap<String, usize>>,
    stuck: Mutex<Vec<String>>,
}

impl Clients {
    pub(crate) fn new(balancer: &Balancer, history: &History) -> Self {
        Self { balancer: balancer.clone(), history: history.clone(), stuck_after: STUCK, tally: Arc::default() }
    }

    /// Those of a control, in which keys may well be stuck.
    pub(crate) fn impatient(mut self) -> Self {
        self.stuck_after = STUCK / 10;
        self
    }

    /// After how long each key is settled or counts as stuck.
    pub(crate) fn longest(&self) -> Duration {
        self.stuck_after + PAUSE + PATIENCE
    }

    /// Sends a charge to any server, once.
    pub(crate) async fn send(&self, key: &str) -> Told {
        self.sends(key, VISA, self.balancer.send(&charge(key, VISA))).await
    }

    /// Sends a charge to one server, once.
    pub(crate) async fn send_to(&self, number: usize, key: &str, source: &str) -> Told {
        self.sends(key, source, self.balancer.send_to(number, &charge(key, source))).await
    }

    /// Sends a slow charge to one server, and returns once its handler has begun: as the `count`th there.
    pub(crate) async fn begin(&self, fleet: &Fleet, number: usize, key: &str, count: usize) -> JoinHandle<Told> {
        let (clients, key) = (self.clone(), key.to_owned());
        let sending = tokio::spawn(async move {
            let call = charge(&key, SLOW);
            clients.sends(&key, SLOW, clients.balancer.send_alone(number, &call)).await
        });
        fleet.server(number).charge_begun(SLOW, count).await;
        sending
    }

    /// Takes down what is sent, and what comes of it.
    pub(crate) async fn sends(&self, key: &str, source: &str, sending: impl Future<Output = Option<Answer>>) -> Told {
        let sent = self.history.sent(key, source);
        let answer = sending.await;
        let told = answer.as_ref().map_or(Told::Nothing, Told::of);
        self.count(answer.as_ref(), &told);
        self.history.answered(sent, told.clone());
        told
    }

    fn count(&self, answer: Option<&Answer>, told: &Told) {
        let slug = match told {
            Told::Outcome { .. } => {
                self.tally.outcomes.fetch_add(1, Ordering::Relaxed);
                let is_replay = answer.is_some_and(Answer::is_replay);
                self.tally.replays.fetch_add(usize::from(is_replay), Ordering::Relaxed);
                return;
            }
            Told::Refused(slug) => slug.as_str(),
            Told::Nothing => "",
        };
        *self.tally.refused.lock().unwrap().entry(slug.to_owned()).or_default() += 1;
    }

    /// Sends a charge to any server, again and again, until the answer does not ask for another try.
    pub(crate) async fn until_settled(&self, key: &str) -> Told {
        self.insist(None, key, VISA).await
    }

    /// The same at one server.
    pub(crate) async fn until_settled_at(&self, number: usize, key: &str, source: &str) -> Told {
        self.insist(Some(number), key, source).await
    }

    async fn insist(&self, number: Option<usize>, key: &str, source: &str) -> Told {
        let began = Instant::now();
        loop {
            let told = match number {
                Some(number) => self.send_to(number, key, source).await,
                None => self.send(key).await,
            };
            match &told {
                told if told.says_to_come_again() => {}
                Told::Nothing => {}
                _ => return told,
            }
            if began.elapsed() > self.stuck_after {
                self.tally.stuck.lock().unwrap().push(format!("{key}: stuck at {told:?}"));
                return told;
            }
            tokio::time::sleep(time_below(PAUSE)).await;
        }
    }

    /// Sends a charge one to five times to random servers, some at once. Each is sent again until it is settled.
    pub(crate) async fn one_to_five(&self, key: &str) {
        let mut left = 1 + below(5);
        while left > 0 {
            let at_once = 1 + below(left);
            join_all((0..at_once).map(|_| self.until_settled(key))).await;
            left -= at_once;
        }
    }

    /// The same; who has waited for long begins anew, at other servers. What was sent stays sent.
    pub(crate) async fn one_to_five_in_haste(&self, key: &str) {
        let began = Instant::now();
        while timeout(HASTE, self.one_to_five(key)).await.is_err() {
            if began.elapsed() > self.stuck_after {
                self.tally.stuck.lock().unwrap().push(format!("{key}: stuck"));
                return;
            }
        }
    }

    /// Asks all of so many servers, so that what one of them remembers is asked of the others, too.
    pub(crate) async fn ask_all(&self, servers: usize, key: &str) {
        join_all((0..servers).map(|number| self.until_settled_at(number, key, VISA))).await;
    }

    /// Keys that were never settled.
    pub(crate) fn stuck(&self) -> Vec<String> {
        self.tally.stuck.lock().unwrap().clone()
    }

    /// Returns how often a refusal was given.
    pub(crate) fn refused(&self, slug: &str) -> usize {
        self.tally.refused.lock().unwrap().get(slug).copied().unwrap_or_default()
    }

    /// What came of the requests, in words.
    pub(crate) fn figures(&self) -> String {
        let (outcomes, replays) = (&self.tally.outcomes, &self.tally.replays);
        let refused = self.tally.refused.lock().unwrap();
        let refused = refused.iter().map(|(slug, count)| match slug.as_str() {
            "" => format!(", no answer {count}"),
            slug => format!(", {slug} {count}"),
        });
        format!(
            "keys {}, requests {}, outcomes {}, of them replays {}{}",
            self.history.keys(),
            self.balancer.requests(),
            outcomes.load(Ordering::Relaxed),
            replays.load(Ordering::Relaxed),
            refused.collect::<String>(),
        )
    }
}
