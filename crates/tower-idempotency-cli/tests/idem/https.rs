//! Services behind `https://`: they are trusted by their certificates, and get nothing otherwise.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{StatusCode, Version};
use axum::routing::post;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::tempdir;
use testkit::dice::free_address;
use testkit::process::Process;
use testkit::{Answer, Call, Connection, skipped};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::program::{accepts, program, proxy, run};
use crate::tls::certificates;

/// What names the certificates that this machine trusts.
const TRUSTED: &str = "SSL_CERT_FILE";

/// Starts a service over TLS, with the certificate in this directory. It counts its orders.
async fn service(directory: &Path) -> (SocketAddr, Arc<AtomicUsize>) {
    let made = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&made);
    let order = async move |version: Version| {
        (StatusCode::CREATED, format!("order {} over {version:?}", counted.fetch_add(1, Ordering::SeqCst)))
    };
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = plain.local_addr().unwrap();
    let app = Router::new().route("/orders", post(order));
    tokio::spawn(async move { axum::serve(plain, app).await.unwrap() });

    let certificate = CertificateDer::from_pem_file(directory.join("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, acceptor) = (listener.accept().await.unwrap().0, acceptor.clone());
            tokio::spawn(async move {
                let mut outside = acceptor.accept(stream).await?;
                tokio::io::copy_bidirectional(&mut outside, &mut TcpStream::connect(to).await?).await
            });
        }
    });
    (address, made)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_sends_nothing_to_a_service_that_it_does_not_trust() {
    let directory = tempdir().unwrap();
    if let Err(obstacle) = certificates(directory.path(), [127, 0, 0, 1].into()) {
        return skipped("a service over TLS behind the proxy", &obstacle);
    }
    let (service, made) = service(directory.path()).await;
    let (upstream, store) =
        (format!("https://{service}"), format!("sled:{}", directory.path().join("store").display()));
    let order = async |authority: &str, key: &str, more: &[&str]| -> Answer {
        let [listen, monitor] = [(); 2].map(|()| free_address());
        let mut command = proxy(listen, monitor, &upstream, &store);
        command.arg("--one-account");
        command.args(more).env(TRUSTED, directory.path().join(authority));
        let _proxy = Process(command.spawn().unwrap());
        accepts(listen).await;
        let call = Call::post("/orders", "item=book").header("idempotency-key", key);
        Connection::http1(listen).await.unwrap().send(&call).await.unwrap()
    };
    for (number, (key, more, version)) in
        [("one", &[][..], "HTTP/1.1"), ("two", &["--upstream-http2"], "HTTP/2.0")].into_iter().enumerate()
    {
        let refused = order("other.pem", key, more).await;
        assert_eq!((refused.status.as_u16(), made.load(Ordering::SeqCst)), (503, number), "{}", refused.text());
        // So the key is free.
        let first = order("ca.pem", key, more).await;
        assert_eq!((first.status.as_u16(), first.is_replay()), (201, false));
        assert_eq!(first.text(), format!("order {number} over {version}"));
        let again = order("ca.pem", key, more).await;
        assert_eq!((again.text(), again.is_replay()), (first.text(), true));
    }
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_examines_a_service_that_it_trusts() {
    let directory = tempdir().unwrap();
    if let Err(obstacle) = certificates(directory.path(), [127, 0, 0, 1].into()) {
        return skipped("a service over TLS is checked", &obstacle);
    }
    let (service, made) = service(directory.path()).await;
    let check = async |authority: &str| {
        let mut command = program(&[
            "check",
            &format!("https://{service}/orders"),
            "--data",
            "item=book",
            "--only",
            "same-key-again",
        ]);
        command.env(TRUSTED, directory.path().join(authority));
        tokio::task::spawn_blocking(|| run(command, "")).await.unwrap()
    };
    let refused = check("other.pem").await;
    assert_eq!((refused.code, made.load(Ordering::SeqCst)), (2, 0), "{refused:?}");
    assert!(refused.stdout.contains("certificate"), "{refused:?}");
    let broken = check("ca.pem").await;
    assert_eq!(broken.code, 1, "the service knows nothing of keys: {broken:?}");
    assert!(broken.stdout.contains("curl -i -X POST 'https://") && made.load(Ordering::SeqCst) > 1, "{broken:?}");
}
