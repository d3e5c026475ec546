//! Connections that are refused: those to another server, and those without encryption.

use futures_util::future::join_all;
use tower_idempotency_postgres::{PostgresBackendBuilder, PostgresError};

use super::certificates::Authority;
use super::setup::{encrypting_server, let_in, server_and_certificates, to};
use super::wire::{ASKS_FOR_TLS, Wire};

#[tokio::test]
async fn a_server_that_is_not_the_right_one_is_refused() {
    let Some((server, certificates)) = encrypting_server("that another server is refused").await else { return };
    let before = let_in(&server);
    let cases = [
        // Signed by another authority of the same name.
        ("localhost", Authority::Another, "BadSignature"),
        ("db.example", Authority::Its, "not valid for name"),
        ("127.0.0.1", Authority::Its, "not valid for name"),
    ];
    let errors = cases.map(async |(host, authority, why)| {
        let errors = errors_of(to(server.address(), host, "").tls(certificates.trusting(authority))).await;
        for error in errors {
            assert!(matches!(error, PostgresError::Refused { .. }), "{error}");
            let says = error.to_string();
            assert!(says.contains("invalid peer certificate") && says.contains(why), "{host}: {says}");
        }
    });
    join_all(errors).await;
    assert_eq!(let_in(&server), before, "it was told nothing");
}

#[tokio::test]
async fn nothing_is_sent_in_plain_where_tls_was_set_up() {
    let promise = "that nothing is sent in plain";
    let Some((server, certificates)) = server_and_certificates(promise) else { return };
    let wire = Wire::to(server.address()).await;
    let at = |mode| to(wire.address(), "localhost", mode);
    let with_tls = |mode| at(mode).tls(certificates.trusting(Authority::Its));
    // `sslmode=require` without a TLS configuration is no TLS either.
    let builders = [with_tls(""), with_tls("sslmode=require"), at("sslmode=require")];
    for errors in join_all(builders.map(errors_of)).await {
        for error in errors {
            assert!(error.to_string().contains("TLS"), "{error}");
        }
    }
    let said = wire.by_clients();
    assert!(said.len() >= 6);
    // A connection that was given up may have sent less.
    assert!(
        said.iter().any(|said| said == &ASKS_FOR_TLS) && said.iter().all(|said| ASKS_FOR_TLS.starts_with(said)),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_url_may_take_a_server_without_encryption() {
    let promise = "that a URL may take a server without encryption";
    let Some((server, certificates)) = server_and_certificates(promise) else { return };
    for mode in ["disable", "prefer", "allow"] {
        let wire = Wire::to(server.address()).await;
        let builder =
            to(wire.address(), "localhost", &format!("sslmode={mode}")).tls(certificates.trusting(Authority::Its));
        builder.migrate().await.unwrap();
        assert!(wire.has_heard("idempotency"), "{mode}");
    }
}

/// The errors with which the database can be neither migrated nor opened.
async fn errors_of(builder: PostgresBackendBuilder) -> [PostgresError; 2] {
    let (migration, backend) = tokio::join!(builder.migrate(), builder.clone().open());
    [migration.unwrap_err(), backend.unwrap_err()]
}
