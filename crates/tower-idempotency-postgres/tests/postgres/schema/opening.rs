//! Opening: databases that are away or refuse every client, and passwords.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::dice::{free_address, loopback};
use testkit::proxy::Proxy;
use tower_idempotency_postgres::{PostgresBackend, PostgresError};
use tower_idempotency_shared::{Backend as _, Clocks};
use tracing_subscriber::fmt::MakeWriter;

use crate::lab::{Lab, builder, claim, client, id, own_server, until};

const SECRET: &str = "s3cr3t";

#[tokio::test]
async fn a_database_that_is_away_is_tried_for_a_while_and_then_said_to_be() {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("postgres://u:{SECRET}@{address}/d");
    let open = || PostgresBackend::from_url(&url).unwrap().open_within(Duration::from_millis(300)).open();
    // It accepts, and never answers.
    let error = open().await.unwrap_err();
    assert!(matches!(error, PostgresError::Away { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    // Nothing listens there.
    drop(listener);
    let error = open().await.unwrap_err();
    assert!(matches!(error, PostgresError::Away { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(format!("{error:?}"), format!("PostgresError({error})"), "as `main` prints it");
    assert!(error.to_string().contains("away") && !format!("{error} {error:?}").contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_comes_up_meanwhile_is_opened() {
    let Some(mut server) = own_server("a database that comes up", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    server.stop();
    let opening = tokio::spawn(builder(&lab.url, "late").open_within(Duration::from_secs(120)).open());
    server.start_again();
    opening.await.unwrap().unwrap();
}

// A seeded fault: the connection for calls has one try.
#[tokio::test]
async fn each_connection_of_an_opening_is_tried_again() {
    let Some(server) = own_server("that each connection is tried again", &[]) else { return };
    let (lab, to) = (Lab::new(&server.url()).await, server.address());
    // The first one looks at the table. Those for calls are closed, twice.
    let way = Proxy::to(to, |number| (number != 1 && number != 2).then_some(())).await;
    let backend = builder(&way.url(), &lab.namespace).open_within(Duration::from_secs(60)).open().await.unwrap();
    let row = lab.put(claim(id(1))).await;
    assert_eq!(backend.get(Clocks::default(), &[id(1)]).await.unwrap().rows, [row]);
}

/// The machine's power has failed, or its database hangs: a connection is accepted, or is not even refused.
#[tokio::test]
async fn a_host_that_does_not_answer_keeps_no_other_from_being_tried() {
    let Some(server) = own_server("that each host is tried", &[]) else { return };
    let hung = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("postgres://postgres@{},{}/postgres", hung.local_addr().unwrap(), server.address());
    let builder = PostgresBackend::from_url(&url).unwrap().wait_for_connection(Duration::from_secs(20));
    let builder = builder.open_within(Duration::from_secs(60));
    builder.migrate().await.unwrap();
    let backend = builder.open().await.unwrap();
    assert_eq!(backend.get(Clocks::default(), &[]).await.unwrap().rows, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_never_read() {
    let Some(mut server) = own_server("that a standby is never read", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let row = lab.put(claim(id(1))).await;
    let directory: String = lab.client.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
    lab.sql(&format!("COPY (SELECT WHERE false) TO '{directory}/standby.signal'")).await;
    server.stop();
    server.start_again();
    let client = client(&lab.url).await;
    let in_recovery = "SELECT pg_is_in_recovery()";
    assert!(client.query_one(in_recovery, &[]).await.unwrap().get::<_, bool>(0), "it is one");
    for _ in 0..6 {
        assert!(lab.backend.get(Clocks::default(), &[id(1)]).await.is_err(), "it may lack what was written elsewhere");
    }
    let error = builder(&lab.url, "late").open_within(Duration::from_secs(5)).open().await.unwrap_err();
    assert!(matches!(error, PostgresError::Away { .. }) && error.to_string().contains("writes"), "{error}");
    client.batch_execute("SELECT pg_promote()").await.unwrap();
    assert_eq!(lab.get(id(1)).await, row);
}

/// The operator has to correct each of them: another try would end like the first.
#[tokio::test]
async fn a_refusal_that_is_final_is_told_at_once() {
    let Some(server) = own_server("that a final refusal is told at once", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let directory: String = lab.client.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
    lab.sql(&format!(
        "SET password_encryption = 'scram-sha-256';
         CREATE ROLE shy LOGIN PASSWORD 'right'; CREATE ROLE barred LOGIN;
         COPY (VALUES ('host all shy 127.0.0.0/8 scram-sha-256'), ('host all barred 127.0.0.0/8 reject'),
             ('host all all 127.0.0.0/8 trust')) TO '{directory}/pg_hba.conf';
         SELECT pg_reload_conf()"
    ))
    .await;
    let url = |role: &str| lab.url.replace("postgres@", &format!("{role}@"));
    let open = async |url: String| {
        let opening = PostgresBackend::from_url(&url).unwrap().open_within(Duration::from_secs(36_000)).open();
        tokio::time::timeout(Duration::from_secs(120), opening).await.expect("it is not tried again")
    };
    until("the new rules", async || open(url("barred")).await.is_err()).await;
    for (url, why) in [
        (format!("{}?sslmode=require", lab.url), "server does not support TLS; the URL's `sslmode`"),
        (format!("{}?channel_binding=require", url("shy:right")), "authentication error"),
        (url("shy:wrong"), "28P01"),
        (url("shy"), "password missing"),
        (url("barred"), "28000"),
        (url("nobody"), "28000"),
        (format!("postgres://postgres@{}/nothing", server.address()), "3D000"),
    ] {
        let refused = open(url.clone()).await.unwrap_err();
        assert!(matches!(refused, PostgresError::Refused { .. }), "{url}: {refused:?}");
        assert!(refused.to_string().contains(why), "{url}: {refused}");
        assert!(refused.to_string().contains(&server.address().to_string()), "{url}: {refused}");
    }
    open(url("shy:right")).await.unwrap_err();
    lab.sql("GRANT ALL ON SCHEMA idempotency TO shy; GRANT ALL ON ALL TABLES IN SCHEMA idempotency TO shy").await;
    open(url("shy:right")).await.unwrap();
}

/// Another one may be the primary in a moment.
#[tokio::test]
async fn a_host_that_refuses_does_not_end_the_tries_for_one_that_is_away() {
    let Some(server) = own_server("that a host that is away is waited for", &[]) else { return };
    let away = free_address();
    for hosts in [format!("{away},{}", server.address()), format!("{},{away}", server.address())] {
        let url = format!("postgres://nobody@{hosts}/postgres");
        let open = PostgresBackend::from_url(&url).unwrap().open_within(Duration::from_millis(500)).open();
        let error = open.await.unwrap_err();
        assert!(matches!(error, PostgresError::Away { .. }), "{error:?}");
        assert!(error.to_string().contains(&away.to_string()), "{error}");
    }
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
    let error = backend.get(Clocks::default(), &[]).await.unwrap_err();
    said += &format!("{error:?} {error}");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!log.is_empty(), "it is logged");
    assert!(!said.contains(SECRET) && !log.contains(SECRET), "{said}\n{log}");
}
