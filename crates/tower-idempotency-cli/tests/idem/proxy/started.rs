//! How the proxy starts, what its options do, and how it ends.

use std::process::Stdio;
use std::time::Duration;

use tempfile::tempdir;
use testkit::process::{ended, signal};
use testkit::{Call, Connection};

use super::parts::Parts;
use crate::program::{idem, program, run};

#[tokio::test(flavor = "multi_thread")]
async fn options_come_from_the_command_line_and_a_file_and_a_signal_ends_it_in_good_order() {
    let Some((directory, parts, _service)) = Parts::served("the proxy takes its options").await else { return };
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, "[layer]\nrequire_key = true\non_in_flight = \"reject\"\n[sled]\nmax_records = 1000\n")
        .unwrap();
    let config = file.to_str().unwrap().to_owned();
    let more = ["--config", &config, "--profile", "stripe", "--scope-header", "x-account"];
    let mut proxy = parts.start_proxy(&more).await;
    let send = async |account: &str, key: Option<&str>| {
        let call = Call::post("/orders", "item=book").header("x-account", account);
        let call = match key {
            Some(key) => call.header("idempotency-key", key),
            None => call,
        };
        Connection::http1(parts.proxy).await.unwrap().send(&call).await.unwrap()
    };
    assert_eq!(send("a", Some("k")).await.status.as_u16(), 201);
    assert!(send("a", Some("k")).await.is_replay());
    assert!(!send("b", Some("k")).await.is_replay(), "another account's key is another one");
    let missing = send("a", None).await;
    assert_eq!(missing.status.as_u16(), 400, "the file requires a key");
    assert_eq!(missing.json()["error"]["type"], "invalid_request_error", "the profile's form");
    assert_eq!(parts.effects().len(), 2);

    signal(proxy.0.id(), "TERM");
    let status = ended(&mut proxy.0, Duration::from_secs(60)).expect("it ends by itself");
    assert_eq!(status.code(), Some(0));
    // Its records are those of any store, with the place as their label.
    let said = idem(&["ls", &parts.store]);
    assert!(said.stdout.contains("POST /orders"), "{said:?}");
}

#[test]
fn what_is_wrong_is_named_before_anything_is_opened() {
    let directory = tempdir().unwrap();
    let store = format!("sled:{}", directory.path().join("store").display());
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, "[layer]\nrequire_keys = true\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, wrong) in [
        (&["--upstream", "http://127.0.0.1:1/api"][..], "without a path"),
        (&["--upstream", "127.0.0.1:1"], "http://127.0.0.1:3000"),
        (&["--upstream", "http://127.0.0.1:1", "--profile", "strip"], "\"draft\", \"stripe\" or \"acp\""),
        (&["--upstream", "http://127.0.0.1:1", "--config", file], "unknown field `require_keys`"),
        (&["--upstream", "http://127.0.0.1:1", "--config", "no-such-file"], "no-such-file"),
        (&["--upstream", "http://127.0.0.1:1", "--listen", "192.0.2.1:80"], "--listen 192.0.2.1:80"),
    ] {
        let mut command = program(&[&["proxy", "--store", &store, "--monitor", "127.0.0.1:0"][..], arguments].concat());
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.stdin(Stdio::piped());
        let said = run(command, "");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains(wrong), "{wrong}: {said:?}");
        assert!(!directory.path().join("store").exists(), "{wrong}");
    }
    let said =
        idem(&["proxy", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--monitor", "127.0.0.1:0"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("IDEM_STORE"), "{said:?}");
}
