//! Connections to Redis: all of them are encrypted, and another server than the right one is refused.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use testkit::redis::{RedisServer, server_where};
use testkit::rows::{claim, id, put};
use testkit::skipped;
use tower_idempotency_redis::{Durability, RedisBackend, RedisBackendBuilder, RedisError};
use tower_idempotency_shared::{Backend as _, Clocks, Write};

use super::certificates::{Authority, Certificates};
use super::setup::until_heard;
use super::wire::Wire;

/// A server that has a port with TLS and one without, the way to the first, and a certificate for that way's address.
struct Encrypting {
    server: RedisServer,
    wire: Wire,
    encrypts_at: SocketAddr,
    certificates: Certificates,
}

impl Encrypting {
    /// `None`: not shown here.
    async fn new(promise: &str) -> Option<Self> {
        // A Valkey without TLS crashes when it is asked for such a port.
        let settings = ["crash-log-enabled no", "crash-memcheck-enabled no", "tls-auth-clients no"];
        let server = server_where(promise, &settings, "a server that can encrypt", can_encrypt)?;
        let port = TcpListener::bind((server.address().ip(), 0)).unwrap().local_addr().unwrap().port();
        let encrypts_at = SocketAddr::new(server.address().ip(), port);
        let wire = Wire::to(encrypts_at).await;
        let certificates = Certificates::new(wire.address().ip());
        let certificates = certificates.map_err(|obstacle| skipped(promise, &obstacle)).ok()?;
        certificates.install(server.directory());
        encrypt(&server, port);
        Some(Self { server, wire, encrypts_at, certificates })
    }
}

/// Returns whether the server has a port with TLS once it has a certificate.
fn can_encrypt(server: &RedisServer) -> bool {
    let Ok(certificates) = Certificates::new(server.address().ip()) else { return true };
    certificates.install(server.directory());
    let port = TcpListener::bind((server.address().ip(), 0)).unwrap().local_addr().unwrap().port();
    server.say(&encrypts(server, port)).starts_with("+OK") && server.say("CONFIG SET tls-port 0").starts_with("+OK")
}

fn encrypt(server: &RedisServer, port: u16) {
    let answer = server.say(&encrypts(server, port));
    assert!(answer.starts_with("+OK"), "{answer}");
}

/// The command after which the server encrypts at this port.
fn encrypts(server: &RedisServer, port: u16) -> String {
    let at = |name: &str| server.directory().join(name).display().to_string();
    format!("CONFIG SET tls-cert-file {} tls-key-file {} tls-port {port}", at("server.crt"), at("server.key"))
}

fn to(scheme: &str, address: SocketAddr) -> RedisBackendBuilder {
    let builder = RedisBackend::from_url(&format!("{scheme}://{address}")).unwrap();
    let builder = builder.durability(Durability::Memory).unwrap().open_within(Duration::from_secs(10));
    // Machines under test are slow.
    builder.wait_for_connection(Duration::from_secs(30)).response_timeout(Duration::from_secs(30))
}

#[tokio::test]
async fn each_connection_to_redis_is_encrypted_and_changes_are_heard() {
    let Some(encrypting) = Encrypting::new("that what is sent to Redis is encrypted").await else { return };
    let Encrypting { server, wire, certificates, .. } = &encrypting;
    let plain = Wire::to(server.address()).await;
    let encrypted = to("rediss", wire.address()).tls(certificates.trusting(Authority::Its));
    for (builder, wire, is_encrypted) in [(encrypted, wire, true), (to("redis", plain.address()), &plain, false)] {
        let (backend, another) = (builder.clone().open().await.unwrap(), builder.open().await.unwrap());
        until_heard(&backend, &another).await;
        let id = id(u64::MAX - u64::from(is_encrypted));
        put(&backend, Write { state: Bytes::from_static(b"card 4242"), ..claim(id) }).await.unwrap();
        assert!(backend.get(Clocks::default(), &[id]).await.unwrap().rows[0].is_some());
        for text in ["card 4242", "ti:{default}"] {
            assert_eq!(wire.has_heard(text), !is_encrypted, "{text}");
        }
        // Each backend has one for calls, and one to listen.
        assert!(wire.by_clients().len() >= 4);
    }
}

#[tokio::test]
async fn a_redis_that_is_not_the_right_one_is_refused_at_once_with_the_reason() {
    let Some(encrypting) = Encrypting::new("that another Redis is refused").await else { return };
    let Encrypting { server, wire, encrypts_at, certificates } = &encrypting;
    let cases = [
        // Signed by another authority of the same name.
        (wire.address(), Authority::Another, "BadSignature"),
        // The certificate is not for this address.
        (*encrypts_at, Authority::Its, "not valid for name"),
    ];
    for (address, authority, why) in cases {
        let builder = to("rediss", address).tls(certificates.trusting(authority));
        let refused = builder.open_within(Duration::from_secs(60)).open().await.unwrap_err();
        assert!(matches!(refused, RedisError::Refused { .. }), "{refused:?}");
        let says = refused.to_string();
        assert!(says.contains("TLS: invalid peer certificate") && says.contains(why), "{says}");
    }
    // A server that does not encrypt is not reached, and hears nothing that can be read.
    let plain = Wire::to(server.address()).await;
    let builder = to("rediss", plain.address()).tls(certificates.trusting(Authority::Its));
    let builder = builder.wait_for_connection(Duration::from_secs(1)).open_within(Duration::from_secs(2));
    let refused = builder.open().await.unwrap_err();
    assert!(matches!(refused, RedisError::Refused { .. } | RedisError::Away { .. }), "{refused:?}");
    assert!(!plain.by_clients().is_empty() && !plain.has_heard("EVAL") && !plain.has_heard("ROLE"));
}
