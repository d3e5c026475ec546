//! Connections to the right server: all of them are encrypted.

use std::fs;

use bytes::Bytes;
use testkit::process::until;
use testkit::rows::{claim, id, put};
use tower_idempotency_shared::{Backend as _, Clocks, Write};

use super::certificates::Authority;
use super::setup::{client, connections, data_directory, encrypting_server, let_in, to, until_heard, with};
use super::wire::{ASKS_FOR_TLS, Wire};

#[tokio::test]
async fn each_connection_is_encrypted_and_notifications_arrive() {
    let promise = "that each connection is encrypted";
    let Some((server, certificates)) = encrypting_server(promise).await else { return };
    let at = |mode| to(server.address(), "localhost", mode);
    // A server that encrypts is never reached in plain, even where the URL would take that.
    for builder in [at(""), at("sslmode=prefer"), at("sslmode=allow"), at("sslmode=require"), with(&server.url())] {
        let builder = builder.tls(certificates.trusting(Authority::Its));
        builder.migrate().await.unwrap();
        let (backend, another) = (builder.clone().open().await.unwrap(), builder.open().await.unwrap());
        until_heard(&backend, &another).await;
        // Each backend has one for calls and one to listen, and one of them has one to notify.
        until("five connections", async || connections(&server).await.0 >= 5).await;
        let (all, encrypted) = connections(&server).await;
        assert_eq!(all, encrypted);
    }
    // This includes connections that are over.
    let plain: Vec<_> = let_in(&server).into_iter().filter(|line| !line.contains("SSL enabled")).collect();
    assert!(plain.is_empty(), "{plain:?}");
    assert!(let_in(&server).len() > 16);
}

#[tokio::test]
async fn what_is_on_the_wire_is_not_what_is_stored() {
    let promise = "that the network cannot read what is stored";
    let Some((server, certificates)) = encrypting_server(promise).await else { return };
    for (mode, is_encrypted) in [("", true), ("sslmode=disable", false)] {
        let wire = Wire::to(server.address()).await;
        let builder = to(wire.address(), "localhost", mode).tls(certificates.trusting(Authority::Its));
        builder.clone().schema("another").unwrap().migrate().await.unwrap();
        let backend = builder.open().await.unwrap();
        let id = id(u64::from(is_encrypted));
        put(&backend, Write { state: Bytes::from_static(b"card 4242"), ..claim(id) }).await.unwrap();
        assert!(backend.get(Clocks::default(), &[id]).await.unwrap().rows[0].is_some());
        for text in ["card 4242", "idempotency", "postgres"] {
            assert_eq!(wire.has_heard(text), !is_encrypted, "{text}, {mode}");
        }
        // A connection that has just begun may have sent less.
        let asks = |said: &Vec<u8>| said.iter().zip(&ASKS_FOR_TLS).all(|(said, asks)| said == asks);
        assert_eq!(wire.by_clients().iter().all(asks), is_encrypted);
    }
}

#[tokio::test]
async fn a_password_is_bound_to_the_connection() {
    let promise = "that a password is bound to the connection";
    let Some((server, certificates)) = encrypting_server(promise).await else { return };
    let rules = data_directory(&server).await.join("pg_hba.conf");
    let before = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("host all payments 127.0.0.0/8 scram-sha-256\n{before}")).unwrap();
    let client = client(&server.url()).await;
    let role = "CREATE ROLE payments LOGIN PASSWORD 's3cr3t'; GRANT USAGE ON SCHEMA idempotency TO payments;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA idempotency TO payments";
    client.batch_execute(role).await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();

    let bound = |password, mode| {
        let more = format!("user=payments password={password} channel_binding=require dbname=postgres {mode}");
        to(server.address(), "localhost", &more).tls(certificates.trusting(Authority::Its))
    };
    until("passwords are asked for", async || bound("wrong", "").open().await.is_err()).await;
    bound("s3cr3t", "").open().await.unwrap();
    let error = bound("s3cr3t", "sslmode=disable").open().await.unwrap_err();
    assert!(error.to_string().contains("channel binding"), "{error}");
}

#[tokio::test]
async fn after_a_crash_of_the_server_all_is_encrypted_again() {
    let promise = "that all is encrypted again after a crash of the server";
    let Some((mut server, certificates)) = encrypting_server(promise).await else { return };
    let builder = to(server.address(), "localhost", "").tls(certificates.trusting(Authority::Its));
    let (backend, another) = (builder.clone().open().await.unwrap(), builder.open().await.unwrap());
    until_heard(&backend, &another).await;
    for _ in 0..2 {
        server.kill();
        backend.get(Clocks::default(), &[id(0)]).await.unwrap_err();
        server.start_again();
        until("an answer", async || backend.get(Clocks::default(), &[id(0)]).await.is_ok()).await;
        until_heard(&backend, &another).await;
        until("five connections", async || connections(&server).await.0 >= 5).await;
        let (all, encrypted) = connections(&server).await;
        assert_eq!(all, encrypted);
    }
}
