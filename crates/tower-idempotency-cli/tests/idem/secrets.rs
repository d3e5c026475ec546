//! Keys, scopes, bodies and passwords are on no command line and in no output that was not asked for.

use std::fs;
use std::io::{Read as _, Write as _};

use serde_json::{Value, json};
use testkit::postgres::own_server;
use testkit::process::until;
use tower_idempotency::store::Store as _;
use tower_idempotency_postgres::PostgresStore;

use crate::postgres::served;
use crate::program::{Said, idem, program, run};
use crate::redis::{durable_server, opened, url};
use crate::service::{Closed, Service, id};

/// A thousand operations, each with a key, an account and a body that are found nowhere else.
const OPERATIONS: usize = 1_000;
const CANARY: &str = "canary-5e7c";

async fn serve(service: &Service) {
    for number in 0..OPERATIONS {
        let [account, key, body] = ["a", "k", "b"].map(|kind| format!("{CANARY}-{kind}-{number}"));
        let path = if number % 10 == 0 { "/unsure" } else { "/done" };
        service.send_as(&account, path, &key, &body).await;
    }
    service.send("/unsure", &format!("{CANARY}-own"), CANARY).await;
}

/// Runs each command, and returns what was said.
fn every_command(store: &str) -> Vec<Said> {
    let own = id(&format!("{CANARY}-own")).to_string();
    let shown = idem(&["show", store, &own, "--json"]);
    let fence = shown.json()["fence"].as_str().unwrap().to_owned();
    let limit = (2 * OPERATIONS).to_string();
    let found = run(program(&["find", store]), &format!("{CANARY}-a-1\n{CANARY}-k-1\n"));
    assert_eq!(found.code, 0, "{found:?}");
    let not_found = run(program(&["find", store]), &format!("{CANARY}-a-1\n{CANARY}-k-2\n"));
    let wrong = run(program(&["find", store]), &format!("{CANARY}-a-1\n{CANARY}\u{e9}\n"));
    let exported = idem(&["export", store, "--step", "charge"]);
    assert_eq!(exported.stdout.lines().count(), 1 + OPERATIONS / 10, "{}", exported.stderr);
    let settle = ["settle", store, &own, "--fence", &fence, "--answer", "-", "--yes"];
    let settled = run(program(&settle), CANARY);
    assert_eq!(settled.code, 0, "{settled:?}");
    let file = decided(exported.stdout.lines().filter(|line| !line.contains(&own)));
    let many = ["settle", store, "--from", "-"];
    let unasked = run(program(&many), &file);
    assert_eq!(unasked.code, 2, "{unasked:?}");
    let many_settled = run(program(&[&many[..], &["--yes", "--json"]].concat()), &file);
    assert_eq!((many_settled.code, &many_settled.json()["done"]), (0, &(OPERATIONS / 10).into()), "{many_settled:?}");
    let again = run(program(&[&many[..], &["--yes"]].concat()), &file);
    assert_eq!(again.code, 0, "{again:?}");
    let fence = idem(&["show", store, &own, "--json"]).json()["fence"].as_str().unwrap().to_owned();
    let forgotten = idem(&["forget", store, &own, "--fence", &fence, "--yes"]);
    assert_eq!(forgotten.code, 0, "{forgotten:?}");
    let listed = idem(&["ls", store, "--limit", &limit]);
    assert_eq!(listed.stdout.lines().count(), 1 + OPERATIONS, "{}", listed.stderr);
    let verified = idem(&["verify", store]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let listed_as_json = idem(&["ls", store, "--limit", &limit, "--json"]);
    let tested = idem(&["doctor", store]);
    vec![
        shown, found, not_found, wrong, exported, settled, unasked, many_settled, again, forgotten, listed, verified,
        listed_as_json, tested,
    ]
}

/// The lines of an export, each with an answer that is a secret.
fn decided<'a>(exported: impl Iterator<Item = &'a str>) -> String {
    let decide = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["action"] = "answer".into();
        line["answer"] = json!({ "status": 201, "headers": [["location", CANARY]], "body": CANARY });
        format!("{line}\n")
    };
    exported.map(decide).collect()
}

fn has_no_canary(said: &[Said]) {
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    for said in said {
        let all = said.all();
        assert!(!all.contains(CANARY) && !all.contains(&hex), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_over_sled_has_a_key_an_account_or_a_body() {
    let closed = Closed::after(&[]).await;
    closed.served(async |service, _| serve(service).await).await;
    has_no_canary(&every_command(&closed.name()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_over_postgresql_has_a_key_an_account_or_a_body() {
    let Some(server) = own_server("that no output has a secret", &[]) else { return };
    let (url, store): (String, PostgresStore) = served(&server).await;
    serve(&Service::over(store.clone())).await;
    store.close().await.unwrap();
    has_no_canary(&every_command(&url));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_over_redis_has_a_key_an_account_or_a_body() {
    let Some(server) = durable_server("that no output over Redis has a secret") else { return };
    let url = url(&server);
    let store = opened(&url).await;
    serve(&Service::over(store.clone())).await;
    store.close().await.unwrap();
    has_no_canary(&every_command(&url));
}

/// What `ps` shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_among_the_arguments() {
    let closed = Closed::after(&[]).await;
    let mut child = program(&["find", &closed.name()]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(CANARY.as_bytes()).unwrap();
    let arguments = format!("/proc/{}/cmdline", child.id());
    until("its arguments", async || fs::read(&arguments).is_ok_and(|arguments| !arguments.is_empty())).await;
    let arguments = fs::read(&arguments).unwrap();
    assert!(String::from_utf8_lossy(&arguments).contains("find"));
    assert!(!String::from_utf8_lossy(&arguments).contains(CANARY));
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("no operation"), "{said}");
    // No command takes one there.
    for command in ["find", "ls", "verify", "doctor"] {
        assert_eq!(idem(&[command, &closed.name(), CANARY]).code, 2, "{command}");
    }
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    for url in [format!("postgres://u:{CANARY}@127.0.0.1:1/d"), format!("postgres://u@127.0.0.1:1/d?password={CANARY}")]
    {
        let refused = idem(&["ls", &url]);
        assert!(refused.code == 2 && refused.stderr.contains("IDEM_STORE"), "{refused:?}");
        assert!(!refused.all().contains(CANARY), "{refused:?}");
    }
}
