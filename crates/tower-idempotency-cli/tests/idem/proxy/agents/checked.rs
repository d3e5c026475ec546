//! `idem check` examines a server of the official SDK that knows nothing of keys, and the same behind the proxy.

use std::net::SocketAddr;

use tempfile::tempdir;
use testkit::dice::free_address;

use super::payments::{SHAPES, proxy};
use super::sdk::Sdk;
use crate::program::{Said, accepts, idem};

async fn check(server: SocketAddr, only: &'static [&'static str]) -> Said {
    let run = move || {
        let url = format!("http://{server}/mcp");
        let only: Vec<_> = only.iter().flat_map(|name| ["--only", name]).collect();
        let data = r#"{"amount":5,"note":"a"}"#;
        let plan = ["check", &url, "--profile", "mcp", "--tool", "pay", "--data", data, "--count", "tool payments"];
        idem(&[&plan[..], &only].concat())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_keys_is_found_and_kept_behind_the_proxy() {
    let Some(package) = Sdk::Python.package("idem check finds a server of tools that knows no keys") else { return };
    for shape in SHAPES {
        let directory = tempdir().unwrap();
        let [service, listen] = [(); 2].map(|()| free_address());
        let _server = Sdk::Python.server(&package, service, &directory.path().join("ledger"), shape);
        let _proxy = proxy(listen, service, directory.path());
        accepts(service).await;
        accepts(listen).await;

        let said = check(service, &["same-key-again", "other-id", "answer-swallowed"]).await;
        assert_eq!(said.code, 1, "{shape:?} {said:?}");
        assert!(said.stdout.contains("DANGEROUS: three requests with one key have 3 effects"), "{shape:?} {said:?}");

        let said = check(listen, &[]).await;
        assert_eq!(said.code, 0, "{shape:?} {said:?}");
        let is_skipped =
            |name: &str| said.stdout.lines().any(|line| line.starts_with(name) && line.contains("skipped"));
        assert_eq!(is_skipped("other-session"), shape.sessions == "stateless", "{shape:?} {said:?}");
        assert_eq!(is_skipped("stream-cut"), shape.body == "json", "{shape:?} {said:?}");
    }
}
