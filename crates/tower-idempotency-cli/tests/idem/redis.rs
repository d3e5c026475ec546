//! A Redis or Valkey database that services use meanwhile.

use std::time::Duration;

use testkit::process::until;
use testkit::redis::{RedisServer, own_server};
use tower_idempotency::store::Store as _;
use tower_idempotency_redis::{RedisBackend, RedisBackendBuilder, RedisStore};

use crate::copy::{Place, listed};
use crate::program::{Said, idem, json, program, run};
use crate::service::{Service, id};

/// The settings for the durability of a URL that names none.
const DURABLE: &[&str] = &["appendonly yes", "appendfsync always"];

/// A server on which a URL that names no durability is opened.
pub(crate) fn durable_server(promise: &str) -> Option<RedisServer> {
    own_server(promise, DURABLE)
}

/// The URL of the services' rows.
pub(crate) fn url(server: &RedisServer) -> String {
    format!("{}?namespace=payments", server.url())
}

/// Machines under test are slow.
pub(crate) fn builder(url: &str) -> RedisBackendBuilder {
    let builder = RedisBackend::from_url(url).unwrap();
    builder.wait_for_connection(Duration::from_secs(30)).response_timeout(Duration::from_secs(30))
}

/// A store over the rows, as a service has it.
pub(crate) async fn opened(url: &str) -> RedisStore {
    RedisStore::builder().open(builder(url).open().await.unwrap()).await.unwrap()
}

fn with(arguments: &[&str], name: &str, value: &str) -> Said {
    let mut command = program(arguments);
    command.env(name, value);
    run(command, "account 7\nk1\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_found_and_settled_while_the_service_runs() {
    let Some(server) = durable_server("operations over Redis") else { return };
    let url = url(&server);
    let store = opened(&url).await;
    let service = Service::over(store.clone());
    service.send("/unsure", "k1", "").await;
    service.send("/done", "k2", "paid").await;
    let waiting = tokio::spawn({
        let service = service.clone();
        async move { service.send("/waits", "k3", "").await }
    });
    service.gate.arrival().await;

    let all = idem(&["ls", &url]);
    assert!(all.code == 0 && all.stderr.contains("--wait"), "{all:?}");
    // What the database can lose is not said each time.
    let loss = "another server takes over";
    assert!(!all.all().contains(loss) && idem(&["doctor", &url]).stdout.contains(loss), "{all:?}");
    let running = json(0, &["ls", &url, "--state", "running"]);
    assert_eq!(running["operations"][0]["id"], id("k3").to_string(), "{running:#}");
    assert_eq!(running["operations"][0]["session"], store.session().short());
    let fence = running["operations"][0]["fence"].as_str().unwrap();
    let refused = idem(&["settle", &url, &id("k3").to_string(), "--fence", fence, "--release", "--yes"]);
    assert!(refused.code == 1 && refused.stderr.contains("--wait"), "it may only look so: {refused:?}");
    let found = run(program(&["find", &url, "--json"]), "account 7\nk1\n").json();
    assert_eq!((&found["state"], &found["label"]), (&"interrupted".into(), &"charge /unsure".into()));
    let exported = idem(&["export", &url, "--step", "charge"]);
    assert_eq!((exported.code, exported.stdout.lines().count()), (0, 1), "{exported:?}");

    let (key, fence) = (id("k1").to_string(), found["fence"].as_str().unwrap());
    let settle = ["settle", &url, &key[..8], "--fence", fence, "--answer", "-", "--status", "201", "--yes"];
    let settled = run(program(&settle), "paid");
    assert_eq!(settled.code, 0, "{settled:?}");
    assert_eq!(service.send("/unsure", "k1", "").await, (201, "paid".to_owned(), true));
    let k2 = id("k2").to_string();
    let shown = json(0, &["show", &url, &k2]);
    assert_eq!(idem(&["forget", &url, &k2, "--fence", shown["fence"].as_str().unwrap(), "--yes"]).code, 0);
    assert_eq!(idem(&["show", &url, &k2]).code, 1);
    assert_eq!(json(0, &["verify", &url])["records"], 2);
    service.gate.open();
    assert_eq!(waiting.await.unwrap().0, 200);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_are_settled_by_a_file() {
    let Some(server) = durable_server("settling many over Redis") else { return };
    let url = url(&server);
    let store = opened(&url).await;
    let service = Service::over(store.clone());
    for key in ["k1", "k2"] {
        service.send("/unsure", key, "").await;
    }
    let exported = idem(&["export", &url]).stdout;
    let decide = |line: &str| line.replacen('{', "{\"action\":\"release\",", 1) + "\n";
    let file: String = exported.lines().map(decide).collect();
    let said = run(program(&["settle", &url, "--from", "-", "--yes", "--json"]), &file);
    assert_eq!((said.code, &said.json()["done"]), (0, &2.into()), "{said:?}");
    assert_eq!(service.send("/done", "k1", "").await.0, 201, "the key is free");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_no_service_uses_is_no_empty_list() {
    let Some(server) = durable_server("that a wrong namespace is named") else { return };
    let url = url(&server);
    let store = opened(&url).await;
    // One that a service uses, and that has no operation.
    assert_eq!(json(0, &["ls", &url])["operations"].as_array().unwrap().len(), 0);
    let id = id("k1").to_string();
    let change = ["--fence", "1", "--yes"];
    let commands = [
        &["ls"][..],
        &["find"],
        &["show", &id],
        &["export"],
        &["verify"],
        &[&["settle", &id, "--release"][..], &change].concat(),
        &[&["forget", &id][..], &change].concat(),
    ];
    for (wrong, said) in
        [(server.url(), "names no namespace"), (format!("{}?namespace=nope", server.url()), "\"nope\"")]
    {
        for command in commands {
            let refused = with(command, "IDEM_STORE", &wrong);
            assert_eq!((refused.code, &*refused.stdout), (3, ""), "{refused:?}");
            assert!(refused.stderr.contains(said) && refused.stderr.contains("?namespace=NAME"), "{refused:?}");
        }
        let refused = idem(&["copy", &wrong, &Place::of("sled").name()]);
        assert!(refused.code == 3 && refused.stderr.contains(said), "{refused:?}");
    }
    store.close().await.unwrap();
}

/// The URL of the rows of a service that has died in a run with the key `k1`. Its lease is of six seconds.
fn died_in_a_run(server: &RedisServer) -> String {
    let url = url(server);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let short = RedisStore::builder().call_timeout(Duration::from_secs(1)).lease(Duration::from_secs(6));
        let store = short.open(builder(&url).open().await.unwrap()).await.unwrap();
        let service = Service::over(store);
        let gate = service.gate.clone();
        tokio::spawn(async move { service.send("/waits", "k1", "").await });
        gate.arrival().await;
    });
    // As if it was killed: nothing of it goes on.
    runtime.shutdown_timeout(Duration::ZERO);
    url
}

#[test]
fn a_run_whose_server_has_died_shows_as_interrupted_and_can_be_settled_and_copied() {
    let Some(server) = durable_server("that the death of a server is noticed") else { return };
    let url = died_in_a_run(&server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seen = || json(0, &["show", &url, &id("k1").to_string(), "--wait=12s"]);
    let mut shown = serde_json::Value::Null;
    runtime.block_on(until("an interrupted operation", async || {
        shown = seen();
        shown["state"] == "interrupted"
    }));
    assert_eq!(shown["cause"], "lease", "{shown:#}");
    let to = Place::of("sled");
    let copied = async || idem(&["copy", &url, &to.name(), "--wait=12s"]).code == 0;
    runtime.block_on(until("a copy", copied));
    let [operation] = listed(&to.name()).try_into().unwrap();
    assert_eq!((&operation["id"], &operation["state"]), (&id("k1").to_string().into(), &"interrupted".into()));
    let fence = shown["fence"].as_str().unwrap();
    let settled = idem(&["settle", &url, &id("k1").to_string(), "--fence", fence, "--release", "--yes", "--wait=12s"]);
    assert_eq!(settled.code, 0, "{settled:?}");
    // It was the only record, and no service lives.
    let gone = idem(&["show", &url, &id("k1").to_string()]);
    assert!(gone.code == 3 && gone.stderr.contains("no service has a row"), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_comes_from_the_environment_and_is_in_no_output() {
    const PASSWORD: &str = "r1ght-s3cr3t";
    const WRONG: &str = "wr0ng-s3cr3t";
    let settings = [DURABLE, &["requirepass r1ght-s3cr3t"]].concat();
    let Some(server) = own_server("passwords from the environment", &settings) else { return };
    let url = url(&server);
    let has = |password: &str| url.replace("redis://", &format!("redis://:{password}@"));
    let store = opened(&has(PASSWORD)).await;
    Service::over(store.clone()).send("/unsure", "k1", "").await;
    store.close().await.unwrap();
    let (id, copy) = (id("k1").to_string(), Place::of("sled"));
    let own = |arguments: &[&str]| with(&[arguments, &[url.as_str()]].concat(), "REDISCLI_AUTH", PASSWORD);
    let named = |arguments: &[&str]| with(arguments, "IDEM_STORE", &has(PASSWORD));
    let none = || idem(&["ls", &url]);
    for (said, code) in [
        (own(&["ls"]), 0),
        (own(&["doctor"]), 0),
        (own(&["find"]), 0),
        (with(&["copy", &url, &copy.name()], "REDISCLI_AUTH", PASSWORD), 0),
        (named(&["ls"]), 0),
        (named(&["show", &id]), 0),
        (named(&["verify"]), 0),
        (named(&["doctor"]), 0),
        (named(&["forget", &id, "--fence", "1", "--yes"]), 1),
        // The variable is another client's.
        (with(&["ls", &url], "PGPASSWORD", PASSWORD), 3),
        (none(), 3),
        (with(&["ls", &url], "REDISCLI_AUTH", WRONG), 3),
        (with(&["ls"], "IDEM_STORE", &has(WRONG)), 3),
        (with(&["doctor"], "IDEM_STORE", &has(WRONG)), 1),
        (idem(&["ls", &has(PASSWORD)]), 2),
        (idem(&["copy", &has(PASSWORD), &copy.name()]), 2),
    ] {
        assert_eq!(said.code, code, "{said:?}");
        assert!(!said.all().contains("s3cr3t"), "{said:?}");
    }
    assert!(idem(&["ls", &has(PASSWORD)]).stderr.contains("IDEM_STORE"));
}

#[test]
fn a_url_that_is_wrong_says_so_and_repeats_no_password() {
    for (url, said) in [
        ("redis://u:s3cr3t@h:port", "expected redis://"),
        ("redis+raft://u:s3cr3t@h", "redis+sentinel://"),
        ("redis+sentinel://u:s3cr3t@h", "redis+sentinel://host:port,host:port/name"),
        ("redis+cluster://h/1", "the database's number"),
        ("redis://h?sslmode=require", "`sslmode`"),
        ("redis://h?durability=disk", "`durability`"),
        ("redis://h?namespace=a&namespace=b", "given twice"),
        ("redis://h?namespace=%7B", "the namespace"),
        ("redis:h", "redis://USER@HOST"),
    ] {
        for said_of in [with(&["ls"], "IDEM_STORE", url), with(&["doctor"], "IDEM_STORE", url)] {
            assert!(said_of.code == 2 && said_of.stderr.contains(said), "{url}: {said_of:?}");
            assert!(!said_of.all().contains("s3cr3t"), "{said_of:?}");
        }
    }
    let outbox = idem(&["outbox", "ls", "redis://h"]);
    assert!(outbox.code == 2 && outbox.stderr.contains("in PostgreSQL, or in a store of sled"), "{outbox:?}");
}

#[test]
fn a_database_that_is_away_or_not_set_up_for_the_url_says_so() {
    let nowhere = testkit::dice::free_address();
    let away = idem(&["ls", &format!("redis://{nowhere}")]);
    assert!(away.code == 3 && away.stderr.contains(&nowhere.to_string()), "{away:?}");
    let Some(server) = own_server("that a missing durability is named", &[]) else { return };
    let refused = idem(&["ls", &url(&server)]);
    assert!(refused.code == 3 && refused.stderr.contains("appendonly is off"), "{refused:?}");
    assert!(refused.stderr.contains("?durability=memory"), "{refused:?}");
}
