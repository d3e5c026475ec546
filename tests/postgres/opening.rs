//! Opening: databases that are away or let nobody in, and passwords.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_idempotency::store::postgres::{PostgresBackend, PostgresError};
use tower_idempotency::store::shared::Backend as _;
use tracing_subscriber::fmt::MakeWriter;

use super::lab::{Lab, builder, client, own_server};

const SECRET: &str = "s3cr3t";

#[tokio::test]
async fn a_database_that_is_away_is_tried_for_a_while_and_then_said_to_be() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://u:{SECRET}@127.0.0.1:{port}/d");
    let open = || PostgresBackend::from_url(&url).unwrap().tried_for(Duration::from_millis(300)).open();
    // It accepts, and never answers.
    let error = open().await.unwrap_err();
    assert!(matches!(error, PostgresError::Away { .. }), "{error:?}");
    // Nobody is there.
    drop(listener);
    let error = open().await.unwrap_err();
    assert!(matches!(error, PostgresError::Away { .. }), "{error:?}");
    assert!(error.to_string().contains("away") && !format!("{error} {error:?}").contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_comes_up_meanwhile_is_opened() {
    let Some(mut server) = own_server("a database that comes up", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    server.stop();
    let opening = tokio::spawn(builder(&lab.url, "late").tried_for(Duration::from_secs(120)).open());
    server.start_again();
    opening.await.unwrap().unwrap();
}

// A seeded fault: the hosts are asked one after the other, for as long as each takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_accepts_connections_and_says_nothing_does_not_keep_anybody_from_the_next() {
    let Some(server) = own_server("hosts that say nothing", &[]) else { return };
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("postgres://postgres@{},{}/postgres", silent.local_addr().unwrap(), server.address());
    let builder = PostgresBackend::from_url(&url).unwrap().wait_for_connection(Duration::from_secs(6));
    let builder = builder.tried_for(Duration::from_secs(60));
    builder.migrate().await.unwrap();
    let backend = builder.open().await.unwrap();
    assert_eq!(backend.get(&[]).await.unwrap().rows, []);
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_password_stands_in_an_error_a_debug_output_or_the_log() {
    let Some(mut server) = own_server("that passwords stay hidden", &[]) else { return };
    let log = Written::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    client(&server.url()).await.batch_execute("CREATE ROLE u LOGIN SUPERUSER PASSWORD 's3cr3t'").await.unwrap();
    let url = server.url().replace("postgres@", &format!("u:{SECRET}@"));
    let builder = PostgresBackend::from_url(&url).unwrap();
    builder.migrate().await.unwrap();
    let mut said = format!("{builder:?}");
    let backend = builder.open().await.unwrap();
    said += &format!("{backend:?}{:?}", backend.guarantee().await.unwrap());
    let refused = PostgresBackend::from_url(&url.replace("u:", "nobody:")).unwrap().open().await.unwrap_err();
    assert!(matches!(refused, PostgresError::Refused { .. }), "{refused:?}");
    said += &format!("{refused:?} {refused}");
    server.kill();
    let error = backend.get(&[]).await.unwrap_err();
    said += &format!("{error:?} {error}");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!log.is_empty(), "it is logged");
    assert!(!said.contains(SECRET) && !log.contains(SECRET), "{said}\n{log}");
}
