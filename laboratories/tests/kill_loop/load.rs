//! One life of a server under load: clients send until it is killed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::dice::below;
use testkit::history::{History, Told};
use testkit::payment_server::Server;
use testkit::{Answer, Call, Connection};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::policies::Treatment;

pub(crate) const CLIENTS: usize = 32;
/// No answer for so long: the server is stuck, and not only slow.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A time below `bound`.
pub(crate) fn random_time(bound: Duration) -> Duration {
    bound.mul_f64(f64::from(u16::try_from(below(65_536)).unwrap()) / 65_536.0)
}

/// A key, and what is to be charged with it.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) key: String,
    pub(crate) source: &'static str,
}

impl Intent {
    /// The key is the charge's description too, by which it is found in the ledger.
    pub(crate) fn call(&self) -> Call {
        let mut call = Call::charge(&self.key, self.source);
        call.body.push_str(&format!("&description={}", self.key));
        call
    }

    /// Sends it once, and writes down what came of it. `None`: the connection broke.
    pub(crate) async fn send(
        &self,
        connection: &mut Connection,
        history: &History,
        treatment: Treatment,
    ) -> Option<(Told, Answer)> {
        let sent = history.sent(&self.key, self.source);
        let Ok(answer) = connection.send(&self.call()).await else {
            history.answered(sent, Told::Nothing);
            return None;
        };
        let told = told(&answer, treatment);
        history.answered(sent, told.clone());
        Some((told, answer))
    }
}

/// Under `Rerun` a server's own failure frees the key, and is no outcome.
fn told(answer: &Answer, treatment: Treatment) -> Told {
    match Told::of(answer) {
        Told::Outcome { .. } if treatment.reruns && answer.status.is_server_error() => {
            Told::Refused(format!("released, {}", answer.status))
        }
        told => told,
    }
}

/// When to kill.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// After so many answers.
    Answers(usize),
    /// After so long.
    Time(Duration),
    /// After so long, and then so many answers more.
    Later(Duration, usize),
}

/// What is to be sent.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) history: History,
    pub(crate) treatment: Treatment,
    /// Keys of earlier lives, which go first, and whether they were interrupted.
    pub(crate) retries: Vec<(Intent, bool)>,
    /// How new keys begin.
    pub(crate) name: String,
    /// Whether one key in eight is sent by two clients at once.
    pub(crate) duplicates: bool,
    /// Whether the first new charge takes two seconds.
    pub(crate) slow: bool,
}

/// How a life under load ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The new keys.
    pub(crate) fresh: Vec<Intent>,
    pub(crate) answers: usize,
    /// Requests that got no answer, and how many of them were retries of what was interrupted before.
    pub(crate) cut: usize,
    pub(crate) cut_again: usize,
}

/// What the clients share.
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
    let (time, more) = match moment {
        Moment::Answers(count) => (Duration::ZERO, count),
        Moment::Time(time) => (time, 0),
        Moment::Later(time, count) => (time, count),
    };
    tokio::time::sleep(time).await;
    let enough = *answered.borrow() + more;
    let enough = tokio::time::timeout(GIVE_UP, answered.wait_for(|answers| *answers >= enough)).await;
    assert!(matches!(enough, Ok(Ok(_))), "the server does not answer: {}", server.log.text());
    drop(enough);
    server.kill();
    clients.join_all().await;
    let fresh = std::mem::take(&mut *work.fresh.lock().unwrap());
    let (cut, cut_again) = (work.cut.load(Ordering::SeqCst), work.cut_again.load(Ordering::SeqCst));
    Ended { fresh, answers: *answered.borrow(), cut, cut_again }
}

/// One request after the other, until the server is gone.
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
    /// What to send next, and whether it was interrupted in an earlier life.
    fn next(&self) -> (Intent, bool) {
        if let Some(retry) = self.retries.lock().unwrap().pop() {
            return retry;
        }
        let mut fresh = self.fresh.lock().unwrap();
        if self.load.duplicates
            && below(8) == 0
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
