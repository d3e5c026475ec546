//! The operation of the server: the promises to an operator who starts, stops and inspects it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::tempdir;
use testkit::payment_server::Setup;
use testkit::process::until;
use testkit::{Call, Connection};

use crate::stores::refusal;

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_it_listens_and_what_to_try() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    assert_ne!(server.address.port(), 0);
    let (output, log, address) = (server.output.clone(), server.log.clone(), server.address);
    assert_eq!(server.get("/readyz").await.json()["ready"], true);
    server.stop().await;
    let log = log.whole().await;
    assert!(log.contains("on_interrupted: Refuse"), "{log}");
    assert!(log.contains("no interrupted operations"));
    let output = output.whole().await;
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.len(), 2, "after the first, two lines to try");
    for line in lines {
        assert!(line.starts_with(&format!("curl -i http://{address}/v1/charges ")), "{line}");
        assert!(line.contains("Idempotency-Key") && !line.contains('#'), "a shell may run a comment: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_charge_finish_and_exits_with_0() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory);
    let mut server = setup.start();
    let call = Call::charge("sigterm", "tok_slow");
    let mut connection = Connection::http1(server.address).await.unwrap();
    let (answer, ()) = tokio::join!(connection.send(&call), async {
        server.charge_begun("tok_slow", 1).await;
        server.terminate();
    });
    let answer = answer.expect("the client gets its answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.exit().await.code(), Some(0));
    let server = setup.start();
    let replay = server.send(&call).await;
    assert!(replay.is_replay());
    assert_eq!(replay.body, answer.body);
    assert_eq!(server.charges().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_charge_finish_whose_client_is_gone() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory);
    let mut server = setup.start();
    let call = Call::charge("gone", "tok_slow");
    drop(server.charging_slowly(&call).await);
    server.terminate();
    assert_eq!(server.exit().await.code(), Some(0));
    let server = setup.start();
    assert!(server.send(&call).await.is_replay());
    assert_eq!(server.charges().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_found_in_the_files_or_the_logs() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory).log("trace");
    let server = setup.start();
    let key = |number: usize| format!("canary-{number:03}-c0ffee");
    let mut one = Connection::http1(server.address).await.unwrap();
    let mut two = Connection::http2(server.address).await.unwrap();
    let source = |number: usize| match number % 50 {
        1 => "tok_chargeDeclined",
        2 => "tok_panic",
        3 => "tok_unavailable",
        _ => "tok_visa",
    };
    for number in 0..200 {
        let mut call = Call::charge(&key(number), source(number));
        call.body.push_str("&description=songbird");
        let connection = if number % 2 == 0 { &mut one } else { &mut two };
        let first = connection.send(&call).await.unwrap();
        assert_eq!(first.status == 200, source(number) == "tok_visa");
        if number % 10 == 0 {
            assert!(connection.send(&call).await.unwrap().is_replay());
        }
    }
    let refused = Call::charge("canary-malformed\\c0ffee", "tok_visa");
    assert_eq!(one.send(&refused).await.unwrap().refusal(), (400, "key-malformed".to_owned()));
    let log = server.log.clone();
    drop((one, two));
    server.stop().await;

    let log = log.whole().await;
    assert!(log.contains("TRACE") && log.contains("stopped"), "the logs are complete");
    let leak = log.lines().find(|line| line.contains("canary"));
    assert_eq!(leak, None, "a key is in the logs");
    let holding = |text: &str| {
        let holds = |file: &PathBuf| fs::read(file).unwrap().windows(text.len()).any(|part| part == text.as_bytes());
        files(&setup.data).into_iter().filter(holds).collect::<Vec<_>>()
    };
    assert_eq!(holding("songbird"), [setup.data.join("db")], "what is stored can be found this way");
    assert!(holding("canary").is_empty(), "a key is in {:?}", holding("canary"));
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory);
    let _server = setup.start();
    assert_eq!(fs::metadata(&setup.data).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_program_has_is_named() {
    let directory = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = refusal(&Setup::new(&directory).listening(address), 1).await;
    assert!(said.contains(&format!("--listen {address}: ")), "{said}");
}

// Seeded fault: the server exits with 0 whatever was left.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_data_was_taken_away_is_not_ready_charges_no_more_and_exits_with_1() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory);
    let mut server = setup.start();
    let call = Call::charge("before", "tok_visa");
    assert_eq!(server.send(&call).await.status, 200);
    fs::rename(&setup.data, directory.path().join("elsewhere")).unwrap();
    until("it says so", async || server.send(&Call::get("/readyz")).await.status == 503).await;
    server.send(&Call::charge("after", "tok_visa")).await.assert_refusal(503, "store-unavailable", true, Some("1"));
    server.terminate();
    assert_eq!(server.exit().await.code(), Some(1));
    fs::rename(directory.path().join("elsewhere"), &setup.data).unwrap();
    let server = setup.start();
    assert!(server.send(&call).await.is_replay());
    assert_eq!(server.charges().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_60_a_second_server_on_the_same_data_says_why_it_will_not_start() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory);
    let server = setup.start();
    server.send(&Call::charge("before", "tok_visa")).await;
    let second = setup.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stdout.is_empty());
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(error.contains("is in use: one store at a time may open it"), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    // The first server works as before.
    assert!(server.send(&Call::charge("before", "tok_visa")).await.is_replay());
    server.stop().await;
    assert_eq!(setup.start().charges().await.len(), 1);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn when_the_disk_fails_health_says_so_and_after_a_restart_no_key_is_charged_again() {
    let directory = tempdir().unwrap();
    // A file can't grow beyond some size, as if the disk were full.
    let limited = ["sh", "-c", r#"trap "" XFSZ; ulimit -f 256; exec "$0" "$@""#].map(OsString::from);
    let setup = Setup::new(&directory);
    let server = setup.clone().under(limited).start();
    let mut connection = Connection::http1(server.address).await.unwrap();
    let mut told = Vec::new();
    let failed = loop {
        let call = Call::charge(&format!("full-{}", told.len()), "tok_visa");
        let answer = connection.send(&call).await.unwrap();
        if answer.status != 200 {
            break answer;
        }
        told.push((call, answer));
    };
    assert!(!told.is_empty());
    assert!(failed.status.is_server_error(), "{}", failed.text());
    for probe in ["/livez", "/readyz"] {
        let health = server.get(probe).await;
        assert_eq!(health.status, 503, "only a restart helps");
        let stores = serde_json::json!([{ "store": "sled", "reasons": ["poisoned"] }]);
        assert_eq!(health.json(), serde_json::json!({ "live": false, "ready": false, "stores": stores }));
    }
    let refused = server.send(&Call::charge("after", "tok_visa")).await;
    assert_eq!(refused.refusal(), (503, "store-unavailable".to_owned()));
    drop(server);
    let server = setup.start();
    let last = told.len() - 1;
    for (number, (call, answer)) in told.into_iter().enumerate() {
        let replay = server.send(&call).await;
        // If the record of the last charge could not be written, its client got the real answer.
        if number < last || replay.status == 200 {
            assert_eq!((replay.is_replay(), replay.status, replay.body), (true, answer.status, answer.body));
        } else {
            assert_eq!(replay.refusal(), (409, "outcome-unknown".to_owned()));
        }
    }
    assert!(server.charges().await.len() > last);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_memory_store_all_is_forgotten_at_a_restart() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory).with("--store memory");
    let call = Call::charge("memory", "tok_visa");
    for _ in 0..2 {
        let server = setup.start();
        assert!(!server.send(&call).await.is_replay());
        assert!(server.send(&call).await.is_replay());
        assert_eq!(server.charges().await.len(), 1);
        server.stop().await;
    }
    assert!(!setup.data.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn under_every_policy_nothing_holds_the_directory_at_the_end() {
    for arguments in ["--on-interrupted reconcile", "--atomic", "--on-interrupted refuse"] {
        let directory = tempdir().unwrap();
        let server = Setup::new(&directory).with(arguments).start();
        assert_eq!(server.send(&Call::charge("k", "tok_visa")).await.status, 200);
        let log = server.log.clone();
        server.stop().await;
        let log = log.whole().await;
        let warns = log.lines().any(|line| line.contains("WARN") && !line.contains("the store is new"));
        assert!(log.contains("stopped") && !warns, "{arguments}: {log}");
    }
}

// "A public feature for laboratories: any dependency can switch protections off."
#[tokio::test(flavor = "multi_thread")]
async fn trap_92_what_breaks_a_laboratory_breaks_no_server() {
    let directory = tempfile::tempdir().unwrap();
    let switch = ["env", "TOWER_IDEMPOTENCY_BREAK=record"].map(std::ffi::OsString::from);
    let server = Setup::new(&directory).under(switch).start();
    let call = Call::charge("k", "tok_visa");
    assert!(!server.send(&call).await.is_replay());
    assert!(server.send(&call).await.is_replay(), "its outcome is recorded");
}
