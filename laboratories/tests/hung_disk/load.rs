//! Requests at a fixed rate, answered or not, over a few HTTP/2 connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::{Call, Connection};
use tokio::task::JoinSet;

/// The number of connections for new keys, whose answers may take a while, and for the other requests.
const FOR_KEYS: usize = 96;
const FOR_OTHERS: usize = 4;
/// The number of requests of each other kind in a second.
const OTHERS_PER_SECOND: usize = 50;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NewKey,
    NoKey,
    /// A replay of a charge that the server has in memory.
    Remembered,
    Health,
}

/// The answer to a request, and the time that it took.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) status: Option<u16>,
    pub(crate) is_replay: bool,
    problem: String,
    took: Duration,
}

/// The times that requests of one kind took.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    took: Vec<Duration>,
    pub(crate) failed: usize,
}

impl Latencies {
    pub(crate) fn count(&self) -> usize {
        self.took.len()
    }

    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// The figures of a load.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) charged: usize,
    pub(crate) overloaded: usize,
    pub(crate) unavailable: usize,
    /// The requests that got another answer, and those that got none.
    pub(crate) other: usize,
    pub(crate) unanswered: usize,
    charged_keys: Vec<String>,
    refused: Vec<String>,
    latencies: [Latencies; 3],
}

impl Figures {
    pub(crate) fn of(&self, kind: Kind) -> &Latencies {
        &self.latencies[kind as usize - 1]
    }

    pub(crate) fn charged_keys(&self, most: usize) -> Vec<String> {
        self.charged_keys.iter().take(most).cloned().collect()
    }

    pub(crate) fn refused_keys(&self) -> Vec<String> {
        self.refused.clone()
    }

    fn add(&mut self, kind: Kind, key: String, came: &Came) {
        if kind != Kind::NewKey {
            let latencies = &mut self.latencies[kind as usize - 1];
            latencies.took.push(came.took);
            let is_right = came.status == Some(200) && came.is_replay == (kind == Kind::Remembered);
            latencies.failed += usize::from(!is_right);
            return;
        }
        match (came.status, &*came.problem) {
            (Some(200), _) => {
                self.charged += 1;
                self.charged_keys.push(key.clone());
            }
            (Some(503), "overloaded") => self.overloaded += 1,
            (Some(503), "store-unavailable") => self.unavailable += 1,
            (Some(_), _) => self.other += 1,
            (None, _) => self.unanswered += 1,
        }
        if came.status == Some(503) {
            self.refused.push(key);
        }
    }
}

/// The connections, and the keys that were sent over them.
#[derive(Clone)]
pub(crate) struct Clients {
    for_keys: Arc<Vec<Connection>>,
    for_others: Arc<Vec<Connection>>,
    keys: Arc<AtomicUsize>,
    /// The key of a charge that this server has in memory.
    remembered: String,
    sent: Arc<AtomicUsize>,
}

impl Clients {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut connections = Vec::new();
        for _ in 0..FOR_KEYS + FOR_OTHERS {
            connections.push(Connection::http2(address).await.expect("the server listens"));
        }
        let for_others = Arc::new(connections.split_off(FOR_KEYS));
        Self {
            for_keys: Arc::new(connections),
            for_others,
            keys: Arc::default(),
            remembered: "remembered".to_owned(),
            sent: Arc::default(),
        }
    }

    /// Sends new keys at `rate` a second, and a few requests of all other kinds, for `time`, and waits for their
    /// answers.
    pub(crate) async fn load(&self, time: Duration, rate: usize) -> Figures {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let (began, mut sent, mut answers) = (Instant::now(), [0; 4], JoinSet::new());
        while began.elapsed() < time {
            tick.tick().await;
            let due = |per_second: usize| (began.elapsed().as_secs_f64() * per_second as f64) as usize;
            for kind in [Kind::NewKey, Kind::NoKey, Kind::Remembered, Kind::Health] {
                let due = due(if kind == Kind::NewKey { rate } else { OTHERS_PER_SECOND });
                for _ in sent[kind as usize]..due {
                    let clients = self.clone();
                    answers.spawn(async move {
                        let key = format!("key-{}", clients.keys.fetch_add(1, Ordering::Relaxed));
                        (
                            kind,
                            key.clone(),
                            if kind == Kind::NewKey { clients.send_key(&key).await } else { clients.send(kind).await },
                        )
                    });
                }
                sent[kind as usize] = due;
            }
        }
        let mut figures = Figures::default();
        for (kind, key, came) in answers.join_all().await {
            figures.add(kind, key, &came);
        }
        figures
    }

    /// Sends a charge with this key.
    pub(crate) async fn send_key(&self, key: &str) -> Came {
        self.ask(&self.for_keys, charge(key)).await
    }

    /// Returns the same clients, connected to another server.
    pub(crate) async fn reconnected(&self, address: SocketAddr) -> Self {
        Self { keys: Arc::clone(&self.keys), remembered: "another".to_owned(), ..Self::connect(address).await }
    }

    /// Sends a charge with this key on one of the other connections.
    pub(crate) async fn send_other(&self, key: &str) -> Came {
        self.ask(&self.for_others, charge(key)).await
    }

    pub(crate) async fn send(&self, kind: Kind) -> Came {
        let request = match kind {
            Kind::NewKey | Kind::Remembered => charge(&self.remembered),
            // This request charges nothing: its fields are missing.
            Kind::NoKey => Call::post("/v1/charges", ""),
            Kind::Health => Call::get("/livez"),
        };
        let mut came = self.ask(&self.for_others, request).await;
        if kind == Kind::NoKey && came.status == Some(400) {
            came.status = Some(200);
        }
        came
    }

    async fn ask(&self, of: &[Connection], call: Call) -> Came {
        let began = Instant::now();
        let mut connection = of[self.sent.fetch_add(1, Ordering::Relaxed) % of.len()].another();
        let answer = tokio::time::timeout(Duration::from_secs(100), connection.send(&call)).await;
        let took = began.elapsed();
        match answer {
            Ok(Ok(answer)) => {
                let (status, problem) = answer.refusal();
                Came { status: Some(status), is_replay: answer.is_replay(), problem, took }
            }
            _ => Came { status: None, is_replay: false, problem: String::new(), took },
        }
    }
}

fn charge(key: &str) -> Call {
    Call::charge(key, "tok_visa")
}
