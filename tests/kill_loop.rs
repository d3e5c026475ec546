//! A server that is killed at random keeps its word: what was answered is replayed, and no key is charged twice.
//!
//! The long form; its last line has the figures:
//!
//! ```text
//! cargo build --example payment_server
//! KILL_ROUNDS=100 cargo test --test kill_loop -- --nocapture
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its figures"
)]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use common::lab::Answer;
use common::process::{Call, Connection, Server, Setup, eventually};
use http::StatusCode;
use tempfile::tempdir;
use tokio::task::JoinSet;

const CLIENTS: usize = 16;
/// The server is killed after a random number of answers, at most this one.
const MOST_ANSWERS: u64 = 60;

/// A key, and what its clients were told so far.
#[derive(Debug, Clone)]
struct Intent {
    key: String,
    call: Call,
    told: Option<(StatusCode, Bytes)>,
}

impl Intent {
    fn new(key: String, source: &str) -> Self {
        let mut call = Call::charge(&key, source);
        call.body.push_str(&format!("&description={key}"));
        Self { key, call, told: None }
    }
}

/// What a round, and then the whole loop, has come to.
#[derive(Debug, Default)]
struct Figures {
    acknowledged: usize,
    unfinished: usize,
    violations: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_a_kill_is_replayed_and_no_key_is_charged_twice() {
    let rounds = std::env::var("KILL_ROUNDS").map_or(10, |rounds| rounds.parse().expect("KILL_ROUNDS is a number"));
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory).with("--on-in-flight reject");
    let mut figures = Figures::default();
    let (mut last, mut all) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut server = setup.start();
        all.extend(retry(&server, last, &mut figures.violations).await);
        last = charge_until_killed(&mut server, round).await;
        let acknowledged = last.iter().filter(|intent| intent.told.is_some()).count();
        let unfinished = last.len() - acknowledged;
        assert!(acknowledged > 0 && unfinished > 0, "round {round} shows nothing: {acknowledged}, {unfinished}");
        figures.acknowledged += acknowledged;
        figures.unfinished += unfinished;
    }
    let server = setup.start();
    all.extend(retry(&server, last, &mut figures.violations).await);
    // Once more, with all that has been answered since.
    let all = retry(&server, all, &mut figures.violations).await;
    count_effects(&server, &all, &mut figures.violations).await;
    server.stop().await;

    let Figures { acknowledged, unfinished, violations } = figures;
    for violation in &violations {
        println!("{violation}");
    }
    let unknown = all.iter().filter(|intent| matches!(&intent.told, Some((StatusCode::CONFLICT, _)))).count();
    let count = violations.len();
    println!(
        "kill loop: rounds {rounds}, acknowledged {acknowledged}, unfinished {unfinished} (of which {unknown} are \
         refused, their outcome unknown), violations {count}"
    );
    assert_eq!(count, 0);
}

/// Lets clients charge, each with one key after the other, and kills the server while they do.
async fn charge_until_killed(server: &mut Server, round: usize) -> Vec<Intent> {
    let answers = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        // The slow one is under way whenever the kill comes.
        let source = if client == 0 { "tok_slow" } else { "tok_visa" };
        clients.spawn(charge(server.address, format!("round-{round}-client-{client}"), source, Arc::clone(&answers)));
    }
    server.charge_begun("tok_slow", 1).await;
    let until = 1 + usize::try_from(getrandom::u64().unwrap() % MOST_ANSWERS).unwrap();
    eventually("enough answers", || (answers.load(Ordering::SeqCst) >= until).then_some(())).await;
    server.kill();
    clients.join_all().await.into_iter().flatten().collect()
}

/// One client: a key, an answer, the next key, until the server is gone.
async fn charge(
    address: std::net::SocketAddr,
    name: String,
    source: &'static str,
    answers: Arc<AtomicUsize>,
) -> Vec<Intent> {
    let mut intents = Vec::new();
    let Ok(mut connection) = Connection::http1(address).await else { return intents };
    for number in 0.. {
        let mut intent = Intent::new(format!("{name}-{number}"), source);
        let answer = connection.send(&intent.call).await;
        intent.told = answer.ok().map(|answer| (answer.status, answer.body));
        let told = intent.told.is_some();
        intents.push(intent);
        if !told {
            break;
        }
        answers.fetch_add(1, Ordering::SeqCst);
    }
    intents
}

/// Sends everything again, over as many connections, and holds each answer against what was told before.
async fn retry(server: &Server, intents: Vec<Intent>, violations: &mut Vec<String>) -> Vec<Intent> {
    let mut shares = vec![Vec::new(); CLIENTS];
    for (number, intent) in intents.into_iter().enumerate() {
        shares[number % CLIENTS].push(intent);
    }
    let mut clients = JoinSet::new();
    for share in shares {
        let address = server.address;
        clients.spawn(async move {
            let mut connection = Connection::http1(address).await.expect("the server listens");
            let mut retried = Vec::new();
            for mut intent in share {
                let answer = connection.send(&intent.call).await.expect("the server answers");
                let violation = judge(&mut intent, answer);
                retried.push((intent, violation));
            }
            retried
        });
    }
    let mut retried = Vec::new();
    for (intent, violation) in clients.join_all().await.into_iter().flatten() {
        retried.push(intent);
        violations.extend(violation);
    }
    retried
}

/// What is wrong with the answer to a retry.
fn judge(intent: &mut Intent, answer: Answer) -> Option<String> {
    let key = &intent.key;
    let wrong = |what: &str| Some(format!("{key}: {what}: {} {}", answer.status, answer.text()));
    match &intent.told {
        // Refusals come anew each time; they are told from their problem, not from a replay's mark.
        Some((status, body)) if (*status, body) != (answer.status, &answer.body) => wrong("another answer"),
        Some((StatusCode::OK, _)) if !answer.is_replay() => wrong("charged again"),
        Some(_) => None,
        None if answer.status == 200 || answer.refusal() == (409, "outcome-unknown".to_owned()) => {
            intent.told = Some((answer.status, answer.body));
            None
        }
        None => wrong("neither charged nor refused"),
    }
}

/// One charge for each key that was told so, at most one for each of which nobody knows.
async fn count_effects(server: &Server, intents: &[Intent], violations: &mut Vec<String>) {
    let mut effects = HashMap::<String, usize>::new();
    for charge in server.charges().await {
        *effects.entry(charge["description"].as_str().expect("its key").to_owned()).or_default() += 1;
    }
    for intent in intents {
        let count = effects.remove(&intent.key).unwrap_or(0);
        let charged = intent.told.as_ref().is_some_and(|(status, _)| *status == StatusCode::OK);
        if count > 1 || (charged && count != 1) {
            violations.push(format!("{}: {count} charges, told {:?}", intent.key, intent.told));
        }
    }
    assert!(effects.is_empty(), "charges that nobody asked for: {effects:?}");
}
