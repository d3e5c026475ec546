//! Checks that no statement has become more expensive for the server.
//!
//! `cargo bench -p tower-idempotency-postgres --bench instructions` counts the instructions of PostgreSQL with
//! callgrind (Debian's `valgrind`), and fails if a count is 3 % more than in `benches/instructions.json`. With
//! `-- --save` it writes that file anew. Counts of another version of PostgreSQL or another processor are shown, and
//! not compared.
//!
//! A server logs the statements of a claim and an outcome, with their parameters. Then the same data is opened by a
//! single process, which prepares these statements, and executes them with other ids and tokens. What is counted is the
//! execution of a prepared statement: not the parsing of its parameters, the commit, or the text of its answer.
//!
//! What the process executes for a first request through the layer is shown, and not compared: on a busy machine it
//! takes more reads for the server's answers. It is counted in the process alone, and with hyper's server, for a client
//! in another process.
//!
//! `-- turns` compares the times of a claim by the statement and by a function in PL/pgSQL, both as text. Nothing is
//! kept of that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

mod prepared;
mod turns;

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use axum::Router;
use http_body_util::BodyExt as _;
use testkit::bench::callgrind::{self, Counts, NO_VALGRIND, NoValgrind, collected, counted, skip, valgrind};
use testkit::bench::exchange::{KEY, SMALL, bare, protected, send};
use testkit::bench::load::key;
use testkit::bench::wanted;
use testkit::postgres::{PostgresServer, own_server};
use testkit::rows::{claim, complete, id, put};
use testkit::{Call, Connection};
use tokio::net::TcpListener;
use tokio::process::Command;
use tower_idempotency::{MemoryStore, OnInterrupted};
use tower_idempotency_postgres::tokio_postgres::{NoTls, connect};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};
use tower_idempotency_shared::Write;

use prepared::Prepared;

/// The number of executions: in the first count, and in the second.
const FEW: u64 = 200;
const MANY: u64 = 600;
/// The function that executes a prepared statement.
const COUNTED: &str = "--toggle-collect=ExecuteQuery";
/// The least that is written by hand: `benches/peers` measures the same.
const MINIMUM: &str = "CREATE TABLE public.minimum (key text PRIMARY KEY, request bytea NOT NULL, answer bytea)";
/// `claim-met` is a claim of a row that is there, and `claim-function` one by a function in PL/pgSQL.
const WAYS: [&str; 5] = ["by-hand", "claim", "claim-and-outcome", "claim-met", "claim-function"];
/// A store without a database, for comparison.
const MEMORY: &str = "memory";
const COMMAND: &str = "cargo bench -p tower-idempotency-postgres --bench instructions";

fn main() -> ExitCode {
    if let Some((task, times)) = counted() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (what, of) = task.split_once(' ').unwrap();
        match what {
            "sends" => runtime.block_on(send_first_requests(of, times)),
            "serves" => runtime.block_on(serve_first_requests(of, times)),
            _ => runtime.block_on(ask(of.parse().unwrap(), times)),
        }
        return ExitCode::SUCCESS;
    }
    let Some(mut server) = own_server("what a statement costs", &["log_statement=all", "log_line_prefix="]) else {
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let version = runtime.block_on(write_one(&server.url()));
    let (url, prepared) = (server.url(), Prepared::read(&server.log()));
    if wanted().as_deref() == Some("turns") {
        runtime.block_on(turns::say(&url, &prepared));
        return ExitCode::SUCCESS;
    }
    drop(runtime);
    for (what, task) in [
        ("the process, for a first request", format!("sends {url}")),
        ("the same with hyper's server", format!("serves {url}")),
        ("... over the memory store", format!("serves {MEMORY}")),
        ("... without a layer", "serves bare".to_owned()),
    ] {
        if let Ok(process) = callgrind::instructions(&task) {
            println!("{what:<33} {process:>8.0}");
        }
    }
    server.stop();
    let one = |way: &str| Ok((way.to_owned(), instructions(&server, &prepared, way)?));
    let Ok(counts) = WAYS.into_iter().map(one).collect::<Result<_, NoValgrind>>() else {
        skip(NO_VALGRIND);
        return ExitCode::SUCCESS;
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    Counts::new(format!("PostgreSQL {version}"), counts).compare(&file, COMMAND)
}

/// The handler behind a layer over a namespace that nothing else uses.
async fn over_postgres(url: &str, namespace: String) -> Router {
    let backend = PostgresBackend::from_url(url).unwrap().namespace(namespace).unwrap();
    let store = PostgresStore::open(backend.open().await.unwrap()).await.unwrap();
    protected(SMALL, store, OnInterrupted::Refuse)
}

/// Sends so many first requests, one after the other, in a thread.
async fn send_first_requests(url: &str, times: u64) {
    // As many keys in each count, so that making them is no part of the difference.
    let keys: Vec<_> = (0..callgrind::MANY).map(key).collect();
    let app = over_postgres(url, format!("first-{times}")).await;
    for key in &keys[..usize::try_from(times).unwrap()] {
        let response = send(&app, Some(key)).await;
        assert!(!response.headers().contains_key("idempotent-replayed"), "it is sent for the first time");
        response.into_body().collect().await.unwrap();
    }
}

/// Serves so many first requests of another process, which is not counted.
async fn serve_first_requests(over: &str, times: u64) {
    let app = match over {
        MEMORY => protected(SMALL, MemoryStore::new(), OnInterrupted::Refuse),
        "bare" => bare(SMALL),
        url => over_postgres(url, format!("served-{times}")).await,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = format!("asks {}", listener.local_addr().unwrap());
    let mut client = Command::new(std::env::current_exe().unwrap())
        .args([callgrind::CHILD, &client, &times.to_string()])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    tokio::select! {
        ended = client.wait() => assert!(ended.unwrap().success(), "each request is answered"),
        served = axum::serve(listener, app) => served.unwrap(),
    }
}

/// Sends so many first requests over one connection.
async fn ask(address: SocketAddr, times: u64) {
    let mut connection = Connection::http1(address).await.unwrap();
    for number in 0..times {
        let call = Call::post("/charges", "amount=100&currency=eur&source=tok_visa").header(KEY, &key(number));
        assert_eq!(connection.send(&call).await.unwrap().status, 200);
    }
}

/// Writes a claim and an outcome, and returns the server's version.
async fn write_one(url: &str) -> String {
    let builder = PostgresBackend::from_url(url).unwrap().namespace("payments").unwrap();
    builder.migrate().await.unwrap();
    let backend = builder.open().await.unwrap();
    let session = Some(id(0));
    let claimed = put(&backend, Write { session, state: vec![1; 100].into(), ..claim(id(1)) }).await.unwrap();
    put(&backend, Write { state: vec![2; 200].into(), ..complete(claimed.id, claimed.token) }).await.unwrap();
    let (client, connection) = connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(MINIMUM).await.unwrap();
    client.batch_execute(include_str!("function.sql")).await.unwrap();
    client.query_one("SELECT current_setting('server_version')", &[]).await.unwrap().get(0)
}

/// The instructions of one exchange.
fn instructions(server: &PostgresServer, prepared: &Prepared, way: &str) -> Result<u64, NoValgrind> {
    let count = |times| {
        let mut input: File = tempfile::tempfile().unwrap();
        input.write_all((prepared.lines(way, times).join("\n") + "\n").as_bytes()).unwrap();
        input.rewind().unwrap();
        let mut counter = valgrind();
        counter.arg(COUNTED);
        collected(server.single_process(counter).stdin(input).stdout(Stdio::null()))
    };
    Ok((count(MANY)? - count(FEW)?) / (MANY - FEW))
}
