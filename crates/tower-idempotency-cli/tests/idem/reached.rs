//! How a database is reached: in another schema, past a pooler, and by a socket.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use testkit::postgres::{PostgresServer, own_server};
use tower_idempotency::store::Store as _;
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

use crate::copy::{Place, ids};
use crate::doctor_sled::assert_ends;
use crate::postgres::{NAMESPACE, client, served};
use crate::program::{idem, json};
use crate::service::{Service, id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_may_be_in_a_schema_that_an_option_names() {
    let Some(server) = own_server("a schema of another name", &[]) else { return };
    let backend = PostgresBackend::from_url(&server.url()).unwrap().namespace(NAMESPACE).unwrap();
    let backend = backend.schema("keys").unwrap();
    backend.migrate().await.unwrap();
    let store = PostgresStore::open(backend.open().await.unwrap()).await.unwrap();
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    let url = format!("{}?namespace={NAMESPACE}", server.url());
    let in_it = |arguments: &[&str]| json(0, &[arguments, &["--schema", "keys"]].concat());
    assert_eq!(in_it(&["ls", &url])["operations"][0]["id"], ids(&["k1"])[0]);
    assert_eq!(in_it(&["show", &url, &id("k1").to_string()])["state"], "completed");
    assert_eq!(in_it(&["doctor", &url])["result"], "one-copy");
    assert_eq!(in_it(&["copy", &url, &Place::of("sled").name()])["copied"], 1);
    // There is no table in the usual one, and no schema has such a name.
    assert_eq!(idem(&["ls", &url]).code, 3);
    assert_ends(&idem(&["doctor", &url]), 1, "other-release");
    for command in ["ls", "doctor"] {
        let refused = idem(&[command, &url, "--schema", "Keys"]);
        assert!(refused.code == 2 && refused.stderr.contains("the schema's name"), "{refused:?}");
    }
}

/// A pooler has another connection of the server for each transaction, which does not know the statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_prepared_unless_a_pooler_is_said_to_be_there() {
    let settings = ["log_min_duration_statement=0", "log_line_prefix=%u "];
    let Some(server) = own_server("commands past a pooler", &settings) else { return };
    let (_, store) = served(&server).await;
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    let url = operator(&server, &server.address().ip().to_string()).await;
    for (more, is_prepared) in [(&["--behind-pooler"][..], false), (&[], true)] {
        let before = server.log().len();
        assert_eq!(idem(&[&["show", &url, &id("k1").to_string()], more].concat()).code, 0);
        let log: String = server.log()[before..].lines().filter(|line| line.starts_with("operator ")).collect();
        assert!(log.contains(" execute <unnamed>: "), "{log}");
        assert_eq!(log.contains(" parse s"), is_prepared, "{log}");
    }
}

/// Makes a user whose connections are those of the commands: the server may still authorize a connection that the
/// closed store has given up. Returns the URL by this name of the machine.
async fn operator(server: &PostgresServer, host: &str) -> String {
    client(server).await.batch_execute("CREATE ROLE operator LOGIN SUPERUSER").await.unwrap();
    format!("postgres://operator@{host}:{}/postgres?namespace={NAMESPACE}", server.address().port())
}

/// A name that is not `localhost` may be that of another machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_in_plain_to_a_name_unless_the_url_says_so() {
    let settings = ["listen_addresses=0.0.0.0", "log_connections=on"];
    let Some(server) = own_server("no connection in plain", &settings) else { return };
    let (_, store) = served(&server).await;
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    let authorized = || server.log().matches("connection authorized: user=operator ").count();
    let url = operator(&server, "LOCALHOST").await;
    for (url, code) in [(url.clone(), 3), (format!("{url}&sslmode=disable"), 0)] {
        for command in [&["ls", &url][..], &["copy", &url, &Place::of("sled").name()]] {
            let before = authorized();
            let said = idem(command);
            assert_eq!(said.code, code, "{said:?}");
            assert_eq!(authorized() > before, code == 0, "{}", server.log());
        }
    }
}

/// It is on this machine, so nothing is encrypted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_this_machine_is_reached_by_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = directory.path().display().to_string();
    let Some(server) = own_server("a server's socket", &[&format!("unix_socket_directories={path}")]) else { return };
    let (_, store) = served(&server).await;
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    let (socket, port) = (path.replace('/', "%2F"), server.address().port());
    let url = format!("postgres://postgres@{socket}:{port}/postgres?namespace={NAMESPACE}");
    assert_eq!(json(0, &["ls", &url])["operations"][0]["id"], ids(&["k1"])[0]);
}
