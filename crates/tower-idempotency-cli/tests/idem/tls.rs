//! Connections over TLS.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::dice::free_address;
use testkit::postgres::own_server;
use testkit::process::until;
use testkit::skipped;
use tower_idempotency::store::Store as _;

use crate::postgres::{client, served};
use crate::program::{idem, json};
use crate::redis;
use crate::service::Service;

const PROMISE: &str = "connections over TLS";

/// Makes two authorities, `ca.pem` and `other.pem`, and a certificate of a server at this address by the first of them.
/// The error says what is missing.
pub(crate) fn certificates(directory: &Path, server: IpAddr) -> Result<(), String> {
    let openssl = |arguments: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments).current_dir(directory).stdin(Stdio::null()).stderr(Stdio::null());
        let ended = openssl.status().map_err(|_| "the program openssl is missing".to_owned())?;
        assert!(ended.success(), "{arguments:?}");
        Ok::<_, String>(())
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    for name in ["ca", "other"] {
        let (pem, of) = (format!("{name}.pem"), format!("{name}.key"));
        openssl(&[&["req", "-x509"][..], &key, &["-subj", "/CN=an authority", "-keyout", &of, "-out", &pem]].concat())?;
    }
    openssl(&[&["req"][..], &key, &["-subj", "/CN=a server", "-keyout", "server.key", "-out", "server.csr"]].concat())?;
    let extensions = format!("subjectAltName = IP:{server}\nbasicConstraints = CA:FALSE\n");
    fs::write(directory.join("extensions"), extensions).unwrap();
    openssl(&[
        "x509", "-req", "-in", "server.csr", "-out", "server.crt", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-extfile", "extensions",
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_trusted_by_its_certificate_and_nothing_is_sent_in_plain() {
    let Some(server) = own_server(PROMISE, &[]) else { return };
    let directory = crate::service::directory();
    if let Err(obstacle) = certificates(directory.path(), server.address().ip()) {
        return skipped(PROMISE, &obstacle);
    }
    let (url, _store) = served(&server).await;
    let tls = format!("{url}&sslmode=require");
    let [ca, other] = ["ca.pem", "other.pem"].map(|name| directory.path().join(name).to_str().unwrap().to_owned());
    let plain = idem(&["ls", &tls, "--ca", &ca]);
    assert!(plain.code == 3 && plain.stderr.contains("TLS"), "{plain:?}");
    // As in libpq, these take what the server has.
    let either = ["prefer", "allow"].map(|mode| format!("{url}&sslmode={mode}"));
    let take_it = || either.iter().all(|url| idem(&["ls", url, "--ca", &ca]).code == 0);
    assert!(take_it());

    let client = client(&server).await;
    let data: String = client.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
    let owner = fs::metadata(&data).unwrap();
    for name in ["server.key", "server.crt"] {
        let there = Path::new(&data).join(name);
        fs::copy(directory.path().join(name), &there).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&there, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("encryption", async || idem(&["ls", &tls, "--ca", &ca]).code == 0).await;
    assert!(take_it());
    assert_eq!(idem(&["doctor", &tls, "--ca", &ca]).code, 0);
    for stranger in [&["ls", &tls, "--ca", &other][..], &["ls", &tls]] {
        let refused = idem(stranger);
        assert!(refused.code == 3 && refused.stderr.contains("certificate"), "{refused:?}");
    }
    assert_eq!(idem(&["ls", &tls, "--ca", "missing.pem"]).code, 2);
    // A server of this machine needs none.
    assert_eq!(idem(&["ls", &url]).code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_redis_is_trusted_by_its_certificate() {
    const PROMISE: &str = "connections to Redis over TLS";
    let Some(server) = redis::durable_server(PROMISE) else { return };
    let directory = crate::service::directory();
    let address = server.address().ip();
    if let Err(obstacle) = certificates(directory.path(), address) {
        return skipped(PROMISE, &obstacle);
    }
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let port = free_address().port();
    let set = server.say(&format!(
        "CONFIG SET tls-cert-file {} tls-key-file {} tls-ca-cert-file {} tls-auth-clients no tls-port {port}",
        file("server.crt"),
        file("server.key"),
        file("ca.pem"),
    ));
    if !set.starts_with("+OK") {
        return skipped(PROMISE, &set);
    }
    let store = redis::opened(&redis::url(&server)).await;
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    let tls = format!("rediss://{address}:{port}?namespace=payments");
    let [ca, other] = ["ca.pem", "other.pem"].map(file);
    assert_eq!(json(0, &["ls", &tls, "--ca", &ca])["operations"].as_array().unwrap().len(), 1);
    assert_eq!(idem(&["doctor", &tls, "--ca", &ca]).code, 0);
    for stranger in [&["ls", &tls, "--ca", &other][..], &["ls", &tls]] {
        let refused = idem(stranger);
        assert!(refused.code == 3 && refused.stderr.contains("certificate"), "{refused:?}");
    }
    assert_eq!(idem(&["ls", &tls, "--ca", "missing.pem"]).code, 2);
}
