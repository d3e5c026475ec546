//! One life of a server under load: clients send until it is killed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::dice::below;
use testkit::history::{ClientAnswer, History};
use testkit::payment_server::Server;
use testkit::{Answer, Call, Connection};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::policies::Treatment;

pub(crate) const CLIENTS: usize = 32;
/// The time without an answer after which the server is stuck, and not only slow.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A key, and the charge that is sent with it.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) key: String,
    pub(crate) source: &'static str,
}

impl Intent {
    pub(crate) fn call(&self) -> Call {
        Call::charge_of(&self.key, self.source)
    }

    /// Sends the charge once, and enters the answer into the history. Returns `None` if the connection broke.
    pub(crate) async fn send(
        &self,
        connection: &mut Connection,
        history: &History,
        treatment: Treatment,
    ) -> Option<(ClientAnswer, Answer)> {
        let sent = history.sent(&self.key, self.source);
        let Ok(answer) = connection.send(&self.call()).await else {
            history.answered(sent, ClientAnswer::Nothing);
            return None;
        };
        let told = told(&answer, treatment);
        history.answered(sent, told.clone());
        Some((told, answer))
    }
}

/// Returns the answer as the history has it. Under `Rerun` a server's own failure frees the key, and is no outcome.
fn told(answer: &Answer, treatment: Treatment) -> ClientAnswer {
    match ClientAnswer::of(answer) {
        ClientAnswer::Outcome { .. } if treatment.reruns && answer.status.is_server_error() => {
            ClientAnswer::Refused(format!("released, {}", answer.status))
        }
        told => told,
    }
}

/// The moment of a kill.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// The moment after this many answers.
    Answers(usize),
    /// The moment after this time.
    Time(Duration),
}

/// The requests of one life of a server.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) history: History,
    pub(crate) treatment: Treatment,
    /// The keys of earlier lives, which go first, and whether each was interrupted.
    pub(crate) retries: Vec<(Intent, bool)>,
    /// The prefix of new keys.
    pub(crate) name: String,
    /// `true` if the first new charge takes two seconds.
    pub(crate) slow: bool,
}

/// The results of a life under load.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The new keys.
    pub(crate) fresh: Vec<Intent>,
    pub(crate) answers: usize,
    /// The number of requests that got no answer, and of those among them that retried an interrupted run.
    pub(crate) cut: usize,
    pub(crate) cut_again: usize,
}

/// The state that the clients share.
#[derive(Debug)]
struct Work {
    address: SocketAddr,
    load: Load,
    retries: Mutex<Vec<(Intent, bool)>>,
    fresh: Mutex<Vec<Intent>>,
    answers: watch::Sender<usize>,
    cut: AtomicUsize,
    cut_again: AtomicUsize,
}

/// Sends until the kill, which comes at `moment`.
pub(crate) async fn until_killed(server: &mut Server, mut load: Load, moment: Moment) -> Ended {
    let retries = Mutex::new(std::mem::take(&mut load.retries));
    let (answers, mut answered) = watch::channel(0);
    let (cut, cut_again) = Default::default();
    let work = Work { address: server.address, load, retries, fresh: Mutex::default(), answers, cut, cut_again };
    let work = Arc::new(work);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(Arc::clone(&work)));
    }
    match moment {
        Moment::Answers(count) => {
            let enough = tokio::time::timeout(GIVE_UP, answered.wait_for(|answers| *answers >= count)).await;
            assert!(matches!(enough, Ok(Ok(_))), "the server does not answer: {}", server.log.text());
        }
        Moment::Time(time) => tokio::time::sleep(time).await,
    }
    server.kill();
    clients.join_all().await;
    let fresh = std::mem::take(&mut *work.fresh.lock().unwrap());
    let (cut, cut_again) = (work.cut.load(Ordering::SeqCst), work.cut_again.load(Ordering::SeqCst));
    Ended { fresh, answers: *answered.borrow(), cut, cut_again }
}

/// Sends one request after the other, until the server is gone.
async fn client(work: Arc<Work>) {
    let Ok(mut connection) = Connection::http1(work.address).await else { return };
    loop {
        let (intent, was_interrupted) = work.next();
        if intent.send(&mut connection, &work.load.history, work.load.treatment).await.is_none() {
            work.cut.fetch_add(1, Ordering::SeqCst);
            work.cut_again.fetch_add(usize::from(was_interrupted), Ordering::SeqCst);
            return;
        }
        work.answers.send_modify(|answers| *answers += 1);
    }
}

impl Work {
    /// Returns the next charge to send, and whether it was interrupted in an earlier life.
    fn next(&self) -> (Intent, bool) {
        if let Some(retry) = self.retries.lock().unwrap().pop() {
            return retry;
        }
        let mut fresh = self.fresh.lock().unwrap();
        // Two clients send one key in eight at once.
        if below(8) == 0
            && let Some(other) = fresh.last()
        {
            return (other.clone(), false);
        }
        let number = fresh.len();
        let source = match number {
            0 if self.load.slow => "tok_slow",
            number if number % 16 == 9 => "tok_chargeDeclined",
            _ => "tok_visa",
        };
        let intent = Intent { key: format!("{}-{number}", self.load.name), source };
        fresh.push(intent.clone());
        (intent, false)
    }
}
