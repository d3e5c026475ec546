//! How the proxy starts, what its options do, and how it ends.

use std::process::Stdio;
use std::time::Duration;

use tempfile::tempdir;
use testkit::process::{ended, signal};
use testkit::{Call, Connection};

use super::parts::{Language, Parts};
use crate::copy::Place;
use crate::program::{idem, program, run};

#[tokio::test(flavor = "multi_thread")]
async fn options_come_from_the_command_line_and_a_file_and_a_signal_ends_it_in_good_order() {
    let Some((directory, parts, _service)) = Parts::served("the proxy takes its options").await else { return };
    let file = directory.path().join("proxy.toml");
    let text = "[layer]\nrequire_key = true\non_in_flight = \"reject\"\n[sled]\nmax_records = 1000\n[cors]\n";
    std::fs::write(&file, text.to_owned() + "origins = [\"https://shop.example\"]\nexpose = [\"location\"]\n").unwrap();
    let config = file.to_str().unwrap().to_owned();
    let more = ["--config", &config, "--profile", "stripe", "--scope-header", "x-account"];
    let mut proxy = parts.start_proxy(&more).await;
    let send = async |account: &str, key: Option<&str>| {
        let call = Call::post("/orders", "item=book").header("x-account", account);
        let call = call.header("origin", "https://shop.example");
        let call = match key {
            Some(key) => call.header("idempotency-key", key),
            None => call,
        };
        Connection::http1(parts.proxy).await.unwrap().send(&call).await.unwrap()
    };
    assert_eq!(send("a", Some("k")).await.status.as_u16(), 201);
    let replay = send("a", Some("k")).await;
    assert!(replay.is_replay());
    assert_eq!(replay.headers["access-control-allow-origin"], "https://shop.example");
    let exposed = replay.headers["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("location") && exposed.contains("idempotent-replayed"), "{exposed}");
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
    let written = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let file = &*written("proxy.toml", "[layer]\nrequire_keys = true\n");
    let cors = &*written("cors.toml", "[cors]\norigins = [\"*\"]\ncredentials = true\n");
    let no_origin = &*written("no-origin.toml", "[cors]\norigins = []\n");
    let port = &*written("port.toml", "[cors]\norigins = [\"https://a.example:443\"]\n");
    let capital = &*written("capital.toml", "[cors]\norigins = [\"https://A.example\"]\n");
    let text = "[cors]\norigins = [\"https://a.example\"]\nmethods = [\"*\"]\ncredentials = true\n";
    let methods = &*written("methods.toml", text);
    let other = &*written("other.toml", "[fjall]\nmax_records = 5\n");
    let postgres = &*written("postgres.toml", "[postgres]\nconnections = 5\n");
    let redis = &*written("redis.toml", "[redis]\nconnections = 5\n");
    let outcome = &*written("outcome.toml", "[layer]\noutcome_header_name = \"idempotency-effect\"\n");
    let replay = &*written("replay.toml", "[layer]\nreplay_header_name = \"Idempotency-Effect\"\n");
    let cookie = &*written("cookie.toml", "[layer]\ncredential_cookies = [\"sid=\"]\n");
    let url = &*written("url.toml", "[redis]\nurl = \"redis://:s3cr3t@h\"\n");
    let login = &*written("login.toml", "[cors]\norigins = [\"https://u:s3cr3t@h/\"]\n");
    let short = &*written("short", "fifteen-letters\n");
    for (arguments, wrong) in [
        (&["--upstream", "http://127.0.0.1:1/api"][..], "without a path"),
        (&["--upstream", "http://127.0.0.1:1", "--config", other], "a section [fjall]"),
        (&["--upstream", "http://127.0.0.1:1", "--config", postgres], "a section [postgres]"),
        (&["--upstream", "http://127.0.0.1:1", "--config", redis], "a section [redis]"),
        (&["--upstream", "http://127.0.0.1:1", "--config", outcome], "`outcome_header_name` has the name"),
        (&["--upstream", "http://127.0.0.1:1", "--config", replay], "`replay_header_name` has the name"),
        (&["--upstream", "http://127.0.0.1:1", "--config", cookie], "no cookie can have"),
        (&["--upstream", "127.0.0.1:1"], "http://127.0.0.1:3000"),
        (&["--upstream", "http://user:s3cr3t#x@127.0.0.1"], "without a path"),
        (&["--upstream", "http://127.0.0.1:0"], "without a path"),
        (&["--upstream", "http://127.0.0.1:1", "--config", url], "line 2: unknown field `url`"),
        (&["--upstream", "http://127.0.0.1:1", "--config", login], "small letters, no path"),
        (&["--upstream", "http://127.0.0.1:1", "--profile", "strip"], "\"draft\", \"stripe\", \"acp\", \"iceberg\""),
        (&["--upstream", "http://127.0.0.1:1", "--config", file], "unknown field `require_keys`"),
        (&["--upstream", "http://127.0.0.1:1", "--config", "no-such-file"], "no-such-file"),
        (&["--upstream", "http://127.0.0.1:1", "--listen", "192.0.2.1:80"], "--listen 192.0.2.1:80"),
        (
            &["--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:9", "--monitor", "127.0.0.1:9"],
            "--listen and --monitor are one address",
        ),
        (&["--upstream", "http://127.0.0.1:1", "--scope-header", "x-account"], "cannot be used with"),
        (&["--upstream", "http://127.0.0.1:1", "--scope-credentials"], "cannot be used with"),
        (&["--upstream", "http://127.0.0.1:1", "--admin-token-file", file], "without blanks"),
        (&["--upstream", "http://127.0.0.1:1", "--admin-token-file", short], "16 characters"),
        (&["--upstream", "http://127.0.0.1:1", "--config", cors], "name the origins"),
        (&["--upstream", "http://127.0.0.1:1", "--config", methods], "name the methods"),
        (&["--upstream", "http://127.0.0.1:1", "--config", no_origin], "`origins` is empty"),
        (&["--upstream", "http://127.0.0.1:1", "--config", port], "no port 443 or 80"),
        (&["--upstream", "http://127.0.0.1:1", "--config", capital], "small letters"),
    ] {
        let options = ["proxy", "--store", &store, "--one-account"];
        let mut command = program(&[&options[..], arguments].concat());
        for address in ["--listen", "--monitor"].into_iter().filter(|address| !arguments.contains(address)) {
            command.args([address, "127.0.0.1:0"]);
        }
        command.stdin(Stdio::piped());
        let said = run(command, "");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains(wrong), "{wrong}: {said:?}");
        assert!(!said.stderr.contains("s3cr3t"), "{said:?}");
        assert!(!directory.path().join("store").exists(), "{wrong}");
    }
    let said = idem(&["proxy", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--one-account"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("IDEM_STORE"), "{said:?}");
}

/// As one without a key: it may wait for minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_left_at_the_end_is_said() {
    let directory = tempdir().unwrap();
    let parts = Parts::new(Language::Python, directory.path());
    let silent = tokio::net::TcpListener::bind(parts.service).await.unwrap();
    let log = directory.path().join("log");
    let mut command = parts.proxy_command();
    command.arg("--one-account").stderr(std::fs::File::create(&log).unwrap());
    let mut proxy = parts.start_proxy_by(&mut command).await;
    let mut client = Connection::http1(parts.proxy).await.unwrap();
    let waiting = tokio::spawn(async move { drop(client.send(&Call::post("/orders", "a")).await) });
    let _request = silent.accept().await.unwrap();
    signal(proxy.0.id(), "TERM");
    let status = ended(&mut proxy.0, Duration::from_secs(60)).expect("it ends by itself");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(status.code() == Some(1) && said.contains("not all has ended in time"), "{status:?}: {said}");
    waiting.await.unwrap();
}

/// A path without the engine's name is known for the engine's once it is open.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_another_engine_than_that_of_the_directory_are_refused() {
    let place = Place::of("sled");
    place.serves(&[]).await;
    let (directory, path) = (tempdir().unwrap(), place.path().display().to_string());
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, "[fjall]\nmax_records = 5\n").unwrap();
    let options = ["proxy", "--one-account", "--upstream", "http://127.0.0.1:1"];
    let (listen, monitor) = (["--listen", "127.0.0.1:0"], ["--monitor", "127.0.0.1:0"]);
    let config = ["--config", file.to_str().unwrap()];
    for store in [&*path, "postgres://u@127.0.0.1:1/d", "redis://127.0.0.1:1"] {
        let said = idem(&[&options[..], &listen, &monitor, &config, &["--store", store]].concat());
        assert!(said.code == 2 && said.stderr.contains("a section [fjall]"), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_gets_its_key_in_the_header_of_the_settings() {
    let directory = tempdir().unwrap();
    let parts = Parts::new(Language::Python, directory.path());
    let named = async |headers: http::HeaderMap| {
        let has = |name| headers.contains_key(name);
        (http::StatusCode::CREATED, format!("{} {}", has("x-key"), has("idempotency-key")))
    };
    let app = axum::Router::new().route("/orders", axum::routing::post(named));
    let listener = tokio::net::TcpListener::bind(parts.service).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, "[layer]\nheader_name = \"x-key\"\n").unwrap();
    let _proxy = parts.start_proxy(&["--config", file.to_str().unwrap()]).await;
    for is_replay in [false, true] {
        let call = Call::post("/orders", "item=book").header("x-key", "k");
        let answer = Connection::http1(parts.proxy).await.unwrap().send(&call).await.unwrap();
        assert_eq!((answer.text(), answer.is_replay()), ("true false", is_replay));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_found_in_the_body_where_the_settings_say_so() {
    let directory = tempdir().unwrap();
    let parts = Parts::new(Language::Python, directory.path());
    let effects = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let charge = async move |body: String| {
        let number = effects.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        (http::StatusCode::CREATED, format!("{number}: {body}"))
    };
    let app = axum::Router::new().route("/rpc", axum::routing::post(charge));
    let listener = tokio::net::TcpListener::bind(parts.service).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, "[layer]\nkey_from = \"json:/params/_meta/key\"\n").unwrap();
    let _proxy = parts.start_proxy(&["--config", file.to_str().unwrap()]).await;
    let body = r#"{"method":"charge","params":{"_meta":{"key":"k"}}}"#;
    for is_replay in [false, true] {
        let answer = Connection::http1(parts.proxy).await.unwrap().send(&Call::post("/rpc", body)).await.unwrap();
        assert_eq!((answer.text(), answer.is_replay()), (&*format!("1: {body}"), is_replay));
    }
}

#[test]
fn the_proxy_starts_only_with_a_choice_whose_a_key_is() {
    let said =
        idem(&["proxy", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--store", "sled:nowhere"]);
    assert_eq!(said.code, 2, "{said:?}");
    for option in ["--scope-header", "--scope-credentials", "--one-account"] {
        assert!(said.stderr.contains(option), "{option}: {said:?}");
    }
    assert!(!std::path::Path::new("nowhere").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_of_their_credentials_two_accounts_have_two_operations_and_two_keys_at_the_service() {
    for (choice, runs) in [("--scope-credentials", 2), ("--one-account", 1)] {
        let Some((_directory, parts, _service)) = Parts::served("the proxy has keys of credentials").await else {
            return;
        };
        let _proxy = parts.start_proxy(&[choice]).await;
        let send = async |token: &str| {
            let call = Call::post("/orders", "item=book").header("idempotency-key", "k").header("authorization", token);
            Connection::http1(parts.proxy).await.unwrap().send(&call).await.unwrap()
        };
        assert_eq!(send("Bearer alice").await.status.as_u16(), 201);
        assert!(send("Bearer alice").await.is_replay(), "{choice}");
        let bob = send("Bearer bob").await;
        assert_eq!((bob.status.as_u16(), parts.effects().len()), (if runs == 2 { 201 } else { 422 }, runs), "{choice}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_operators_page_is_made_and_said_or_read_from_a_file() {
    let Some((directory, parts, _service)) = Parts::served("the proxy says its token").await else { return };
    let file = directory.path().join("token");
    std::fs::write(&file, "a-token-of-one-s-own\n").unwrap();
    let page = async |token: &str| {
        let call = Call::operator("/admin").header("authorization", &format!("Bearer {token}"));
        Connection::http1(parts.monitor).await.unwrap().send(&call).await.unwrap().status.as_u16()
    };
    let mut command = parts.proxy_command();
    command.arg("--one-account").stdout(Stdio::piped());
    let mut proxy = parts.start_proxy_by(&mut command).await;
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(proxy.0.stdout.take().unwrap()), &mut said).unwrap();
    let token = said.trim().rsplit(' ').next().unwrap();
    assert!(token.len() == 32 && said.contains("/admin"), "{said}");
    assert_eq!((page(token).await, page("another").await), (200, 401));
    drop(proxy);
    let mut command = parts.proxy_command();
    command.args(["--one-account", "--admin-token-file", file.to_str().unwrap()]).stdout(Stdio::piped());
    let mut proxy = parts.start_proxy_by(&mut command).await;
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(proxy.0.stdout.take().unwrap()), &mut said).unwrap();
    assert!(said.contains("monitor on http://") && !said.contains("token"), "{said}");
    assert_eq!((page("a-token-of-one-s-own").await, page(token).await), (200, 401));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_port_has_the_names_it_is_given_and_no_request_without_a_key_waits_longer_than_it_may() {
    let directory = tempdir().unwrap();
    let parts = Parts::new(Language::Python, directory.path());
    // It does not answer.
    let _silent = tokio::net::TcpListener::bind(parts.service).await.unwrap();
    let hosts = ["--monitor-host", "metrics.internal", "--monitor-host", "Other.internal"];
    let options = [&hosts[..], &["--passed-within", "1s", "--profile", "stripe"]].concat();
    let _proxy = parts.start_proxy(&options).await;
    for (host, status) in [("metrics.internal", 200), ("other.internal:9090", 200), ("evil.example", 421)] {
        let call = Call::get("/livez").header("host", host);
        let answer = Connection::http1(parts.monitor).await.unwrap().send(&call).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{host}");
    }
    let mut client = Connection::http1(parts.proxy).await.unwrap();
    let late = tokio::time::timeout(Duration::from_secs(60), client.send(&Call::post("/orders", "a"))).await;
    let late = late.expect("it is answered").unwrap();
    assert_eq!(late.status.as_u16(), 504);
    assert!(late.json()["error"]["type"].is_string(), "in the profile's form: {}", late.text());
}
