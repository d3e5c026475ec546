//! The real server, stopped in the middle of runs and resumed. Its clients give up meanwhile, and send their requests
//! again over new connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use laboratories::engine::Engine;
use tempfile::TempDir;
use testkit::dice::below;
use testkit::history::{ClientAnswer, History};
use testkit::payment_server::{Server, Setup};
use testkit::process::eventually;
use testkit::{Call, Connection};
use tokio::sync::watch;
use tokio::task::JoinSet;

const CLIENTS: usize = 8;
/// The number of times that each client gives up while the server is stopped.
const GIVE_UPS: usize = 2;
/// The most answers after which the server is stopped. The number is random.
const MOST_ANSWERS: usize = 100;
/// A time longer than the store's timeout.
const LONG: Duration = Duration::from_secs(6);
/// The pause of a client before another try.
const COME_AGAIN: Duration = Duration::from_millis(20);
/// The time after which a client gives its key up, which is a failure.
const GIVE_UP: Duration = Duration::from_secs(60);

/// The modes of the server, in turn.
pub(crate) const MODES: [&str; 4] = [
    "--on-interrupted refuse",
    "--on-interrupted rerun --on-in-flight reject",
    "--on-interrupted reconcile --on-in-flight reject",
    "--atomic",
];

/// A server that is stopped now and then, and the history of its clients.
pub(crate) struct Lab {
    setup: Setup,
    server: Server,
    history: History,
    name: String,
    _directory: TempDir,
}

/// The state that the clients of one pause share.
#[derive(Debug, Default)]
struct Shared {
    answers: AtomicUsize,
    given_up: AtomicUsize,
    enough: AtomicBool,
}

impl Lab {
    pub(crate) fn start(engine: Engine, mode: usize, history: &History) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let setup = engine.serves(Setup::new(&directory)).with(MODES[mode]);
        let (server, name) = (setup.start(), format!("server-{mode}"));
        Self { setup, server, history: history.clone(), name, _directory: directory }
    }

    /// Stops the server while its clients charge, and resumes it. Returns how often a client gave up meanwhile.
    pub(crate) async fn pause(&self, number: usize, is_long: bool) -> usize {
        let (shared, give_up) = (Arc::new(Shared::default()), watch::Sender::new(0));
        let begun = self.server.log.text().matches("a charge begins source=tok_slow").count();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let client = Client {
                address: self.server.address,
                name: format!("{}-pause-{number}-client-{client}", self.name),
                // The slow client has a charge under way whenever the server is stopped.
                source: if client == 0 { "tok_slow" } else { "tok_visa" },
                history: self.history.clone(),
                shared: Arc::clone(&shared),
                give_up: give_up.subscribe(),
            };
            clients.spawn(client.charge());
        }
        self.server.charge_begun("tok_slow", begun + 1).await;
        let until = below(MOST_ANSWERS);
        eventually("enough answers", || (shared.answers.load(Ordering::SeqCst) >= until).then_some(())).await;

        self.server.pause().await;
        let given_up = || shared.given_up.load(Ordering::SeqCst);
        for round in 1..=GIVE_UPS {
            give_up.send_replace(round);
            eventually("all clients give up", || (given_up() == round * CLIENTS).then_some(())).await;
        }
        if is_long {
            tokio::time::sleep(LONG).await;
        }
        shared.enough.store(true, Ordering::SeqCst);
        self.server.resume();
        clients.join_all().await;
        given_up()
    }

    /// Sends everything once more, after a restart, and counts the effects.
    pub(crate) async fn end(self) {
        let Self { setup, server, history, .. } = self;
        let charges = server.charges().await;
        server.stop().await;
        let server = setup.start();
        let mut connection = Connection::http1(server.address).await.expect("the server listens");
        assert_eq!(server.charges().await, charges, "a restart changes no charge");
        for charge in charges {
            let key = charge["description"].as_str().expect("its key");
            history.effect(key);
            let ticket = history.sent(key, "charge");
            let source = if key.ends_with("tok_slow") { "tok_slow" } else { "tok_visa" };
            let answer = connection.send(&Call::charge_of(key, source)).await.expect("the server answers");
            history.answered(ticket, ClientAnswer::of(&answer));
        }
        server.stop().await;
    }
}

struct Client {
    address: SocketAddr,
    name: String,
    source: &'static str,
    history: History,
    shared: Arc<Shared>,
    give_up: watch::Receiver<usize>,
}

impl Client {
    /// Sends one key after the other, each until it has its outcome, until it is enough.
    async fn charge(mut self) {
        for number in 0.. {
            let key = format!("{}-{number}-{}", self.name, self.source);
            self.until_settled(&key).await;
            if self.shared.enough.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    async fn until_settled(&mut self, key: &str) {
        let (call, began) = (Call::charge_of(key, self.source), Instant::now());
        loop {
            assert!(began.elapsed() < GIVE_UP, "{key} is never settled");
            let ticket = self.history.sent(key, "charge");
            let sending = async {
                // Each try has a connection of its own, because the last one may still carry an old answer.
                let mut connection = Connection::http1(self.address).await.ok()?;
                connection.send(&call).await.ok()
            };
            let answer = tokio::select! {
                answer = sending => answer,
                _ = self.give_up.changed() => {
                    self.shared.given_up.fetch_add(1, Ordering::SeqCst);
                    None
                }
            };
            let Some(answer) = answer else { continue };
            let told = ClientAnswer::of(&answer);
            self.history.answered(ticket, told.clone());
            match told {
                ClientAnswer::Outcome { .. } => {
                    self.shared.answers.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                ClientAnswer::Refused(slug) if ["in-flight", "store-unavailable", "overloaded"].contains(&&*slug) => {
                    tokio::time::sleep(COME_AGAIN).await;
                }
                // The key stays unsettled, and the test reports it.
                ClientAnswer::Refused(_) | ClientAnswer::Nothing => return,
            }
        }
    }
}
