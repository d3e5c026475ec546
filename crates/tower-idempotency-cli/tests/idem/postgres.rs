//! A database that services use meanwhile.

use std::time::Duration;

use serde_json::json as value;
use testkit::postgres::{PostgresServer, own_server};
use testkit::process::until;
use tower_idempotency::store::Store as _;
use tower_idempotency_postgres::tokio_postgres::{Client, NoTls, connect};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};
use tower_idempotency_shared::SharedStore;

use crate::copy::Place;
use crate::program::{idem, json, program, run};
use crate::service::{Service, id};

/// The namespace of the services.
pub(crate) const NAMESPACE: &str = "payments";

/// The URL of the services' rows, and a store over them. The table is there then.
pub(crate) async fn served(server: &PostgresServer) -> (String, PostgresStore) {
    let backend = PostgresBackend::from_url(&server.url()).unwrap().namespace(NAMESPACE).unwrap();
    // Machines under test are slow.
    let backend = backend.wait_for_connection(Duration::from_secs(30)).statement_timeout(Duration::from_secs(30));
    backend.migrate().await.unwrap();
    let store = PostgresStore::builder().open(backend.open().await.unwrap()).await.unwrap();
    (format!("{}?namespace={NAMESPACE}", server.url()), store)
}

pub(crate) async fn client(server: &PostgresServer) -> Client {
    let (client, connection) = connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_found_and_settled_while_the_service_runs() {
    let Some(server) = own_server("operations over PostgreSQL", &[]) else { return };
    let (url, store) = served(&server).await;
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
    let loss = "no standby is waited for";
    assert!(!all.all().contains(loss) && idem(&["doctor", &url]).stdout.contains(loss), "{all:?}");
    let running = json(0, &["ls", &url, "--state", "running"]);
    assert_eq!(running["operations"][0]["id"], id("k3").to_string(), "{running:#}");
    assert_eq!(running["operations"][0]["server"], "elsewhere");
    let session = "SELECT left(session, 8) FROM idempotency.operation WHERE kind = 'running'";
    let session: String = client(&server).await.query_one(session, &[]).await.unwrap().get(0);
    assert_eq!(running["operations"][0]["session"], session);
    // No change is for a run that is under way, which may only look so.
    let fence = running["operations"][0]["fence"].as_str().unwrap();
    let refused = idem(&["settle", &url, &id("k3").to_string(), "--fence", fence, "--release", "--yes"]);
    assert_eq!(refused.stdout, "nothing was changed: it is running, which this change is not for\n");
    assert!(refused.code == 1 && refused.stderr.contains("--wait"), "{refused:?}");
    let line = value!({ "id": id("k3").to_string(), "fence": fence, "action": "release" });
    let refused = run(program(&["settle", &url, "--from", "-", "--yes", "--json"]), &format!("{line}\n"));
    let result = &refused.json()["results"][0];
    assert_eq!((refused.code, &result["result"]), (1, &"stale".into()), "it is not settled: {refused:?}");
    assert!(result["detail"].as_str().unwrap().contains("--wait"), "{refused:?}");
    let found = |key: &str| run(program(&["find", &url]), &format!("account 7\n{key}\n")).stderr.contains("--wait");
    assert!(found("k3") && !found("k1"));
    let shown = idem(&["show", &url, &id("k3").to_string()]);
    assert!(shown.stdout.contains(&format!("session        {session}")), "{shown:?}");
    assert!(shown.stderr.contains("--wait"), "{shown:?}");
    let found = run(program(&["find", &url, "--json"]), "account 7\nk1\n").json();
    assert_eq!((&found["state"], &found["label"]), (&"interrupted".into(), &"charge /unsure".into()));

    let (key, fence) = (id("k1").to_string(), found["fence"].as_str().unwrap());
    let settled = run(
        program(&["settle", &url, &key[..8], "--fence", fence, "--answer", "-", "--status", "201", "--yes"]),
        "paid",
    );
    assert_eq!(settled.code, 0, "{settled:?}");
    assert_eq!(service.send("/unsure", "k1", "").await, (201, "paid".to_owned(), true));
    assert_eq!(json(0, &["verify", &url])["records"], 3);
    service.gate.open();
    assert_eq!(waiting.await.unwrap().0, 200);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_no_service_uses_is_no_empty_list() {
    let Some(server) = own_server("that a wrong namespace is named", &[]) else { return };
    let (url, store) = served(&server).await;
    // One that exists, and has no operation.
    assert_eq!(json(0, &["ls", &url])["operations"].as_array().unwrap().len(), 0);
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    let client = client(&server).await;
    let rows = async || client.query("SELECT DISTINCT namespace FROM idempotency.record", &[]).await.unwrap().len();
    let id = id("k1").to_string();
    let change = ["--fence", "1", "--yes"];
    let commands = [
        &["ls"][..],
        &["find"],
        &["show", &id],
        &["verify"],
        &[&["settle", &id, "--release"][..], &change].concat(),
        &[&["forget", &id][..], &change].concat(),
    ];
    for (wrong, said) in
        [(server.url(), "names no namespace"), (format!("{}?namespace=nope", server.url()), "\"nope\"")]
    {
        for command in commands {
            let mut command = program(command);
            command.env("IDEM_STORE", &wrong);
            let refused = run(command, "account 7\nk1\n");
            assert_eq!((refused.code, &*refused.stdout), (3, ""), "{refused:?}");
            assert!(refused.stderr.contains(said) && refused.stderr.contains("NAME: \"payments\"\n"), "{refused:?}");
        }
        let refused = idem(&["copy", &wrong, &Place::of("sled").name()]);
        assert!(refused.code == 3 && refused.stderr.contains(said), "{refused:?}");
    }
    // No command has made the namespace that it has not found.
    assert_eq!(rows().await, 1);
    let many = "INSERT INTO idempotency.record (namespace, id, token, fence, kind, began, since, expires, state)
        SELECT 'a' || n, id, gen_random_uuid(), fence, kind, began, since, expires, state
        FROM idempotency.record, generate_series(101, 125) n WHERE kind = 3";
    client.batch_execute(many).await.unwrap();
    let refused = idem(&["ls", &server.url()]);
    assert!(
        refused.stderr.contains("\"a101\", \"a102\",") && refused.stderr.contains("\"a120\", and others"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("a121"), "{refused:?}");
    store.close().await.unwrap();
}

/// The URL of the rows of a service that has died in a run with the key `k1`. Its lease is of six seconds.
pub(crate) fn died_in_a_run(server: &PostgresServer) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let url = runtime.block_on(async {
        let (url, first) = served(server).await;
        first.close().await.unwrap();
        let backend = PostgresBackend::from_url(&server.url()).unwrap().namespace(NAMESPACE).unwrap();
        let builder = SharedStore::<PostgresBackend>::builder();
        let builder = builder.call_timeout(Duration::from_secs(1)).lease(Duration::from_secs(6));
        let store = builder.open(backend.open().await.unwrap()).await.unwrap();
        let service = Service::over(store);
        let gate = service.gate.clone();
        tokio::spawn(async move { service.send("/waits", "k1", "").await });
        gate.arrival().await;
        url
    });
    // As if it was killed: nothing of it goes on.
    runtime.shutdown_timeout(Duration::ZERO);
    url
}

/// A service that is gone with its run shows as alive to one who has just come.
#[test]
fn a_run_whose_server_has_died_shows_as_interrupted_and_can_be_settled() {
    let Some(server) = own_server("that the death of a server is noticed", &[]) else { return };
    let url = died_in_a_run(&server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seen = || json(0, &["show", &url, &id("k1").to_string(), "--wait=12s"]);
    let mut shown = serde_json::Value::Null;
    runtime.block_on(until("an interrupted operation", async || {
        shown = seen();
        shown["state"] == "interrupted"
    }));
    assert_eq!(shown["cause"], "lease", "{shown:#}");
    let fence = shown["fence"].as_str().unwrap();
    let settled = idem(&["settle", &url, &id("k1").to_string(), "--fence", fence, "--release", "--yes", "--wait=12s"]);
    assert_eq!(settled.code, 0, "{settled:?}");
    assert_eq!(idem(&["show", &url, &id("k1").to_string()]).code, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disputed_outcomes_are_listed_and_shown() {
    let Some(server) = own_server("that disputed outcomes are listed", &[]) else { return };
    let (url, store) = served(&server).await;
    let service = Service::over(store.clone());
    for key in ["k1", "k2"] {
        let waiting = tokio::spawn({
            let service = service.clone();
            async move { service.send("/waits", key, "").await }
        });
        service.gate.arrival().await;
        // As an operator frees the key.
        let sql = "UPDATE idempotency.record SET kind = 5, session = NULL, fence = fence + 1, token = gen_random_uuid()
            WHERE kind = 1";
        client(&server).await.batch_execute(sql).await.unwrap();
        service.gate.admit(1);
        assert_eq!(waiting.await.unwrap().0, 500);
    }
    let listed = json(0, &["ls", &url, "--disputed", "--limit", "1"]);
    let outcome = &listed["operations"][0];
    assert_eq!((&outcome["id"], &outcome["label"]), (&id("k1").to_string().into(), &"charge /waits".into()));
    assert_eq!((&outcome["status"], &outcome["began"]), (&200.into(), &serde_json::Value::Null));
    let text = idem(&["ls", &url, "--disputed", "--full-ids", "--after", listed["next"].as_str().unwrap()]).stdout;
    assert!(text.contains(&id("k2").to_string()) && !text.contains(&id("k1").to_string()), "{text}");

    let (key, fence) = (id("k1").to_string(), outcome["fence"].as_str().unwrap());
    let shown = json(0, &["show", &url, &key[..8], "--disputed", fence, "--body"]);
    assert_eq!((&shown["fence"], &shown["outcome"]["body"]), (&outcome["fence"], &"waited".into()), "{shown:#}");
    let text = idem(&["show", &url, &key, "--disputed", fence]).stdout;
    assert!(text.contains(&format!("outcome        {} bytes", outcome["bytes"])) && !text.contains("waited"), "{text}");
    assert_eq!(idem(&["show", &url, &key, "--disputed", "1"]).code, 1);
    // More than a page: those of the next one are found, too.
    let more =
        "INSERT INTO idempotency.record (namespace, id, token, fence, kind, session, began, since, expires, state)
        SELECT namespace, sha256(n::text::bytea), gen_random_uuid(), n, kind, session, began, since, expires, state
        FROM (SELECT * FROM idempotency.record WHERE fence = $1) one, generate_series(1, 1000) n";
    let number: i64 = fence.parse().unwrap();
    assert_eq!(client(&server).await.execute(more, &[&number]).await.unwrap(), 1_000);
    let first = json(0, &["ls", &url, "--disputed", "--limit", "1000"]);
    let last = json(0, &["ls", &url, "--disputed", "--after", first["next"].as_str().unwrap()]);
    let last = last["operations"].as_array().unwrap();
    assert_eq!((first["operations"].as_array().unwrap().len(), last.len()), (1_000, 2));
    for one in last {
        let [id, fence] = ["id", "fence"].map(|name| one[name].as_str().unwrap());
        assert_eq!(json(0, &["show", &url, id, "--disputed", fence])["fence"], fence);
    }
    store.close().await.unwrap();
    // They stay where they are, which is said.
    let copied = idem(&["copy", &url, &Place::of("sled").name()]);
    assert!(copied.code == 0 && copied.stderr.contains("`idem ls --disputed`"), "{copied:?}");
    assert!(
        copied.stdout.contains("\nthe old store has no records\nthe new store has no records\nThe copy"),
        "{copied:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_row_is_reported() {
    let Some(server) = own_server("that damaged rows are reported", &[]) else { return };
    let (url, store) = served(&server).await;
    let service = Service::over(store.clone());
    for key in ["k1", "k2"] {
        service.send("/done", key, &"paid ".repeat(10_000)).await;
    }
    assert_eq!(json(0, &["verify", &url])["records"], 2);
    let id = id("k2");
    let sql = "UPDATE idempotency.record SET state = set_byte(state, length(state) / 2, 0) WHERE id = $1";
    client(&server).await.execute(sql, &[&id.as_bytes().as_slice()]).await.unwrap();
    let found = json(1, &["verify", &url]);
    assert_eq!((&found["damaged"][0]["id"], &found["records"]), (&id.to_string().into(), &2.into()), "{found:#}");
    // An open one is listed once, among those that wait to be settled, though its bytes can't be read.
    service.send("/unsure", "k3", "").await;
    let id = crate::service::id("k3");
    client(&server).await.execute(sql, &[&id.as_bytes().as_slice()]).await.unwrap();
    let listed = json(0, &["ls", &url]);
    let seen = listed["operations"].as_array().unwrap().iter().filter(|listed| listed["id"] == *id.to_string());
    assert_eq!(seen.map(|listed| listed["state"].clone()).collect::<Vec<_>>(), ["interrupted"], "{listed:#}");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_comes_from_the_environment() {
    let Some(server) = own_server("passwords from the environment", &[]) else { return };
    let (url, store) = served(&server).await;
    let client = client(&server).await;
    let directory: String = client.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
    let sql = format!(
        "CREATE ROLE shy LOGIN PASSWORD 'right'; GRANT ALL ON SCHEMA idempotency TO shy;
         GRANT ALL ON ALL TABLES IN SCHEMA idempotency TO shy;
         COPY (VALUES ('host all shy 127.0.0.0/8 scram-sha-256'), ('host all all 127.0.0.0/8 trust'))
             TO '{directory}/pg_hba.conf';
         SELECT pg_reload_conf()"
    );
    client.batch_execute(&sql).await.unwrap();
    let shy = url.replace("postgres@", "shy@");
    until("the new rules", async || idem(&["ls", &shy]).stderr.contains("password")).await;
    let with = |arguments: &[&str], name: &str, value: &str| {
        let mut command = program(arguments);
        command.env(name, value);
        run(command, "")
    };
    for (said, code) in [
        (with(&["ls", &shy], "PGPASSWORD", "right"), 0),
        (with(&["ls", &shy], "PGPASSWORD", "wrong"), 3),
        (with(&["ls"], "IDEM_STORE", &shy.replace("shy@", "shy:right@")), 0),
    ] {
        assert_eq!(said.code, code, "{said:?}");
    }
    let wrong = with(&["ls"], "IDEM_STORE", &shy.replace("shy@", "shy:s3cr3t@"));
    assert!(wrong.code == 3 && !wrong.all().contains("s3cr3t"), "{wrong:?}");
    store.close().await.unwrap();
}

#[test]
fn a_database_that_is_away_or_not_named_says_so() {
    let nowhere = testkit::dice::free_address();
    let away = idem(&["ls", &format!("postgres://u@{nowhere}/d")]);
    assert!(away.code == 3 && away.stderr.contains(&nowhere.to_string()), "{away:?}");
    let mut empty = program(&["ls"]);
    empty.env("IDEM_STORE", "");
    // Nothing between two signs is no parameter.
    for parameters in ["namespace=a&&sslmode=disable", "&namespace=a", ""] {
        let away = idem(&["ls", &format!("postgresql://u@{nowhere}/d?{parameters}")]);
        assert!(away.code == 3 && away.stderr.contains(&nowhere.to_string()), "{parameters:?}: {away:?}");
    }
    for unnamed in [idem(&["ls"]), run(empty, "")] {
        assert!(unnamed.code == 2 && unnamed.stderr.contains("name a store, or set IDEM_STORE"), "{unnamed:?}");
    }
}
