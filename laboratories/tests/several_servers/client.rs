//! A client with an operation. It sends the request, and repeats it while the answers ask for that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::dice::{below, time_below};
use testkit::history::{ClientAnswer, History};
use testkit::{Answer, Call};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::balancer::{Balancer, TIMEOUT};
use crate::fleet::Fleet;

/// The longest time between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// The time after which a client in haste goes to other servers.
const HASTE: Duration = Duration::from_secs(4);
/// The time after which a key counts as stuck.
const STUCK: Duration = Duration::from_secs(150);
/// The source of most charges, and the source of charges that take a while.
pub(crate) const VISA: &str = "tok_visa";
pub(crate) const SLOW: &str = "tok_slow";

/// The state that all clients of a run share. Clones share it too.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) balancer: Balancer,
    pub(crate) history: History,
    stuck_after: Duration,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    outcomes: AtomicUsize,
    replays: AtomicUsize,
    /// The refusals, by their problems; the empty name counts requests without an answer.
    refused: Mutex<BTreeMap<String, usize>>,
    stuck: Mutex<Vec<String>>,
}

impl Clients {
    pub(crate) fn new(balancer: &Balancer, history: &History) -> Self {
        Self { balancer: balancer.clone(), history: history.clone(), stuck_after: STUCK, counts: Arc::default() }
    }

    /// Returns the clients of a control, in which keys may well be stuck.
    pub(crate) fn impatient(mut self) -> Self {
        self.stuck_after = STUCK / 10;
        self
    }

    /// Returns the time after which each key is settled or counts as stuck.
    pub(crate) fn longest(&self) -> Duration {
        self.stuck_after + PAUSE + TIMEOUT
    }

    /// Sends a charge to any server, once.
    pub(crate) async fn send(&self, key: &str) -> ClientAnswer {
        self.sends(key, VISA, self.balancer.send(&Call::charge_of(key, VISA))).await
    }

    /// Sends a charge to one server, once.
    pub(crate) async fn send_to(&self, number: usize, key: &str, source: &str) -> ClientAnswer {
        self.sends(key, source, self.balancer.send_to(number, &Call::charge_of(key, source))).await
    }

    /// Sends a slow charge to one server, and returns once its handler has begun, as the `count`th there.
    pub(crate) async fn begin(
        &self,
        fleet: &Fleet,
        number: usize,
        key: &str,
        count: usize,
    ) -> JoinHandle<ClientAnswer> {
        let (clients, key) = (self.clone(), key.to_owned());
        let sending = tokio::spawn(async move {
            let call = Call::charge_of(&key, SLOW);
            clients.sends(&key, SLOW, clients.balancer.send_alone(number, &call)).await
        });
        fleet.server(number).charge_begun(SLOW, count).await;
        sending
    }

    /// Enters a request and its answer into the history and the counts.
    pub(crate) async fn sends(
        &self,
        key: &str,
        source: &str,
        sending: impl Future<Output = Option<Answer>>,
    ) -> ClientAnswer {
        let sent = self.history.sent(key, source);
        let answer = sending.await;
        let told = answer.as_ref().map_or(ClientAnswer::Nothing, ClientAnswer::of);
        self.count(answer.as_ref(), &told);
        self.history.answered(sent, told.clone());
        told
    }

    fn count(&self, answer: Option<&Answer>, told: &ClientAnswer) {
        let slug = match told {
            ClientAnswer::Outcome { .. } => {
                self.counts.outcomes.fetch_add(1, Ordering::Relaxed);
                let is_replay = answer.is_some_and(Answer::is_replay);
                self.counts.replays.fetch_add(usize::from(is_replay), Ordering::Relaxed);
                return;
            }
            ClientAnswer::Refused(slug) => slug.as_str(),
            ClientAnswer::Nothing => "",
        };
        *self.counts.refused.lock().unwrap().entry(slug.to_owned()).or_default() += 1;
    }

    /// Sends a charge to any server, again and again, until the answer does not ask for another try.
    pub(crate) async fn until_settled(&self, key: &str) -> ClientAnswer {
        self.insist(None, key, VISA).await
    }

    /// Does the same at one server.
    pub(crate) async fn until_settled_at(&self, number: usize, key: &str, source: &str) -> ClientAnswer {
        self.insist(Some(number), key, source).await
    }

    async fn insist(&self, number: Option<usize>, key: &str, source: &str) -> ClientAnswer {
        let began = Instant::now();
        loop {
            let told = match number {
                Some(number) => self.send_to(number, key, source).await,
                None => self.send(key).await,
            };
            match &told {
                told if told.says_to_come_again() => {}
                ClientAnswer::Nothing => {}
                _ => return told,
            }
            if began.elapsed() > self.stuck_after {
                self.counts.stuck.lock().unwrap().push(format!("{key}: stuck at {told:?}"));
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

    /// Does the same; a client that has waited for long begins anew, at other servers. Requests that were sent stay
    /// sent.
    pub(crate) async fn one_to_five_in_haste(&self, key: &str) {
        let began = Instant::now();
        while timeout(HASTE, self.one_to_five(key)).await.is_err() {
            if began.elapsed() > self.stuck_after {
                self.counts.stuck.lock().unwrap().push(format!("{key}: stuck"));
                return;
            }
        }
    }

    /// Asks the first `servers` servers for the key. If one of them remembers it, the others must answer too.
    pub(crate) async fn ask_all(&self, servers: usize, key: &str) {
        join_all((0..servers).map(|number| self.until_settled_at(number, key, VISA))).await;
    }

    /// Returns the keys that were never settled.
    pub(crate) fn stuck(&self) -> Vec<String> {
        self.counts.stuck.lock().unwrap().clone()
    }

    /// Returns how often the servers gave this refusal.
    pub(crate) fn refused(&self, slug: &str) -> usize {
        self.counts.refused.lock().unwrap().get(slug).copied().unwrap_or_default()
    }

    /// Returns the answers to the requests, in words.
    pub(crate) fn figures(&self) -> String {
        let (outcomes, replays) = (&self.counts.outcomes, &self.counts.replays);
        let refused = self.counts.refused.lock().unwrap();
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
