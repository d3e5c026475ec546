//! The names of stores, headers and files: what is not recognised is refused, and no password is shown.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Said, idem, program, run};
use crate::service::{Closed, directory};

const CANARY: &str = "canary-5e7c";
const PROXY: [&str; 8] = [
    "proxy", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--monitor", "127.0.0.1:0", "--one-account",
];

/// Runs `idem` in this directory, with these variables.
fn run_in(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = program(arguments);
    command.current_dir(directory).envs(variables.iter().copied());
    run(command, "")
}

fn refused(said: &Said, hint: &str) {
    assert!(said.code == 2 && said.stderr.contains(hint), "{hint}: {said:?}");
    assert!(!said.all().contains(CANARY), "{said:?}");
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// Two containers whose names are taken for directories of their own would each run a key.
#[test]
fn a_name_that_is_no_stores_is_refused_by_each_command_and_makes_nothing() {
    let directory = directory();
    let of_redis = format!("redis://:{CANARY}@127.0.0.1:1?namespace=t");
    let of_postgres = format!("postgres://u:{CANARY}@127.0.0.1:1/d");
    let url = of_redis.as_str();
    for (name, hint) in [
        (&*format!("\"{url}\""), "quotes"),
        (&format!("'{of_postgres}'"), "quotes"),
        ("\"sled:canary-5e7c\"", "quotes"),
        ("fjall:'canary-5e7c'", "quotes"),
        (&format!(" {url}"), "blanks"),
        (&format!("{of_postgres}\n"), "line breaks"),
        (&format!("\t{of_postgres}"), "blanks"),
        (&format!("\u{feff}{url}"), "invisible"),
        (&format!("{url}\u{a0}"), "invisible"),
        (&format!("<{url}>"), "placeholder"),
        (&format!("export IDEM_STORE={url}"), "the URL alone"),
        (&format!("jdbc:{of_postgres}"), "the URL alone"),
        (&format!("sled:{url}"), "no ://"),
        (&format!("./{url}"), "no ://"),
        (&format!("REDIS://:{CANARY}@h"), "small letters"),
        (&format!("redis:/{CANARY}"), "the URL alone"),
        (&format!("redis:{CANARY}"), "the URL alone"),
        (&format!("mysql://u:{CANARY}@h"), "the URL alone"),
        (&format!(":{CANARY}@cache:6379"), "the URL alone"),
        (&format!("host=h password={CANARY}"), "the URL alone"),
        ("10.0.0.7:6379", "the URL alone"),
        ("cache-1.internal:6379", "the URL alone"),
        ("$REDIS_URL", "variable"),
        ("sled:${DATA}/canary-5e7c", "variable"),
        ("sled:~/canary-5e7c", "variable"),
        ("undefined", "variable"),
        ("null", "variable"),
        ("None", "variable"),
        ("memory", "write ./ before it"),
        ("memory:", "in memory"),
        ("canary-5e7c.db", "write ./ before it"),
    ] {
        for arguments in [
            &["ls", name][..],
            &["doctor", name],
            &["find", name],
            &["show", name, "86dd3875"],
            &["copy", name, "sled:new"],
            &["copy", "sled:old", name],
            &["outbox", "ls", name],
            &[&PROXY[..], &["--store", name]].concat(),
        ] {
            let mut command = program(arguments);
            command.current_dir(directory.path());
            refused(&run(command, "key\n"), hint);
        }
        for arguments in [&["ls"][..], &["doctor"], &["outbox", "ls"], &PROXY] {
            refused(&run_in(directory.path(), &[("IDEM_STORE", name)], arguments), hint);
        }
    }
    assert!(is_empty(directory.path()), "no directory was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_alone_begins_as_one() {
    let closed = Closed::after(&[("/done", "k", "paid")]).await;
    let (path, parent) = (closed.path().to_str().unwrap(), closed.path().parent().unwrap());
    let name = closed.path().file_name().unwrap().to_str().unwrap();
    for store in [path, &format!("./{name}"), &format!("sled:{name}"), &format!("sled:./{name}")] {
        let said = run_in(parent, &[], &["ls", store]);
        assert!(said.code == 0 && said.stdout.contains("charge /done"), "{store}: {said:?}");
    }
    refused(&run_in(parent, &[], &["ls", name]), "write ./ before it");
}

#[test]
fn a_password_in_a_variable_that_is_not_the_one_that_was_meant_is_refused() {
    let directory = directory();
    let postgres = "postgres://u@127.0.0.1:1/d";
    for (variable, store) in [("PGPASSWORD", postgres), ("REDISCLI_AUTH", "redis://127.0.0.1:1")] {
        for password in [
            format!("{CANARY}\n"),
            format!("{CANARY}\r\n"),
            format!("\"{CANARY}\""),
            format!("'{CANARY}'"),
            format!("{CANARY} "),
        ] {
            for arguments in [&["ls", store][..], &["doctor", store], &["copy", store, "sled:new"]] {
                let said = run_in(directory.path(), &[(variable, &password)], arguments);
                refused(&said, &format!("{variable} has quotes or blanks around the password"));
            }
        }
        let mut command = program(&["ls", store]);
        command.env(variable, <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"p\xff"));
        refused(&run(command, ""), &format!("{variable} has quotes"));
    }
    let mut command = program(&["ls"]);
    command.env("IDEM_STORE", <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"./\xff"));
    refused(&run(command, ""), "invisible characters");
    assert!(is_empty(directory.path()));
}

/// A URL in the wrong place is in the log of the command, too.
#[test]
fn no_error_of_the_command_line_repeats_a_url() {
    let url = &*format!("redis://:{CANARY}@h");
    let unreadable = &*format!("http://u:{CANARY}@h x");
    for arguments in [
        &[url][..],
        &[url, "ls"],
        &["ls", "sled:x", url],
        &["show", url],
        &["show", "sled:x", url],
        &["settle", "sled:x", url, "--fence", "1", "--release", "--yes"],
        &["forget", "sled:x", url, "--fence", "1"],
        &["outbox", "show", "sled:x", url],
        &["outbox", "retry", "sled:x", url, "--fence", "1"],
        &["outbox", "ls", "sled:x", "--after", url],
        &["outbox", "ls", "sled:x", "--state", url],
        &["ls", "sled:x", "--state", url],
        &["ls", "sled:x", "--cause", url],
        &["ls", "sled:x", "--since", url],
        &["ls", "sled:x", "--older-than", url],
        &["ls", "sled:x", "--status", url],
        &["ls", "sled:x", "--scope", url],
        &["ls", "sled:x", "--limit", url],
        &["ls", "sled:x", "--after", url],
        &["ls", "sled:x", &format!("--wait={url}")],
        &["ls", "sled:x", &format!("--stor={url}")],
        &["ls", "sled:x", &format!("-{url}")],
        &["proxy", "--upstream", url],
        &["proxy", "--upstream", unreadable],
        &["proxy", "--upstream", &format!("http://u:{CANARY}@h")],
        &[&PROXY[..], &["--listen", url]].concat(),
        &["proxy", "--upstream", "http://h", "--listen", url],
        &["proxy", "--upstream", "http://h", "--monitor", url],
        &["proxy", "--upstream", "http://h", "--scope-header", url],
        &["proxy", "--upstream", "http://h", "--passed-within", url],
        &[&PROXY[..], &["--store", "sled:x", "--profile", "other", url]].concat(),
    ] {
        let said = idem(arguments);
        assert!(said.code == 2 || said.code == 3, "{arguments:?}: {said:?}");
        assert!(!said.all().contains(CANARY), "{arguments:?}: {said:?}");
    }
    // Any other value is named.
    assert!(idem(&["proxy", "--upstream", "http://h", "--listen", "localhost"]).stderr.contains("'localhost'"));
}

/// The layer would tell accounts apart by what the service never gets.
#[test]
fn a_header_that_the_proxy_does_not_pass_on_tells_no_accounts_apart() {
    let directory = directory();
    let proxy = &PROXY[..PROXY.len() - 1];
    let with = |more: &[&str]| run_in(directory.path(), &[], &[proxy, &["--store", "sled:new"], more].concat());
    for name in [
        "X_Account", "TE", "Keep-Alive", "Upgrade", "Connection", "Proxy-Authorization", "Proxy-Connection",
        "Proxy-Authenticate", "Transfer-Encoding", "HTTP2-Settings", "Trailer", "Expect", "Accept-Encoding",
        "Content-Length", "Host", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Via",
    ] {
        refused(&with(&["--scope-header", "x-tenant", "--scope-header", name]), "the service does not get it");
        for setting in ["fingerprint_headers", "credential_headers", "header_name"] {
            let value = if setting == "header_name" { json!(name) } else { json!(["x-tenant", name]) };
            let file = directory.path().join("proxy.toml");
            fs::write(&file, format!("[layer]\n{setting} = {value}\n")).unwrap();
            let said = with(&["--scope-credentials", "--config", "proxy.toml"]);
            refused(&said, &format!("{setting} {}: the service does not get", name.to_lowercase()));
            fs::remove_file(file).unwrap();
        }
    }
    for name in ["Idempotency-Key", "Idempotency-Mark", "Idempotency-Probe", "Idempotency-Effect"] {
        refused(&with(&["--scope-header", name]), "none of the key's own");
    }
    refused(&with(&["--scope-header", "x-a", "--scope-header", "X-A"]), "each header once");
    assert!(is_empty(directory.path()), "nothing was opened");
}

fn marked(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").into_bytes()
}

/// As Windows PowerShell 5.1 writes it by `>`.
fn wide(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The interrupted operation of a store, as `export` writes it.
fn exported(store: &str) -> Value {
    let said = idem(&["export", store]);
    assert_eq!(said.code, 0, "{said:?}");
    serde_json::from_str(said.stdout.lines().next().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_of_utf_8_is_skipped_in_a_file_of_changes_and_utf_16_changes_nothing() {
    let closed = Closed::after(&[("/unsure", "k", "")]).await;
    let (store, file) = (closed.name(), closed.path().with_extension("changes"));
    let mut line = exported(&store);
    line["action"] = "release".into();
    let settle = ["settle", &*store, "--from", file.to_str().unwrap(), "--yes"];
    let without_mark = line.to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
    for text in [wide(&format!("{line}\r\n")), without_mark] {
        fs::write(&file, text).unwrap();
        let said = idem(&settle);
        refused(&said, "UTF-16: save it as UTF-8; nothing was changed");
    }
    assert_eq!(exported(&store)["state"], "interrupted");
    fs::write(&file, marked(&format!("{line}\r\n"))).unwrap();
    let said = idem(&settle);
    assert_eq!((said.code, said.last_line()), (0, "1 done"), "{said:?}");
    fs::remove_file(file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_json_has_no_mark_and_one_of_bytes_is_as_it_is() {
    let closed = Closed::after(&[("/unsure", "k", ""), ("/unsure", "l", "")]).await;
    let store = closed.name();
    let directory = directory();
    let settle = |key: &str, name: &str, text: &[u8]| {
        let file = directory.path().join(name);
        fs::write(&file, text).unwrap();
        let id = crate::service::id(key).to_string();
        let fence = idem(&["show", &store, &id, "--json"]).json()["fence"].as_str().unwrap().to_owned();
        idem(&["settle", &store, &id, "--fence", &fence, "--answer", file.to_str().unwrap(), "--yes"])
    };
    refused(&settle("k", "answer.json", &wide("{}")), "UTF-16");
    assert_eq!(settle("k", "answer.json", &marked("{}")).code, 0);
    assert_eq!(settle("l", "answer.txt", &marked("paid")).code, 0);
    let sent = closed
        .served(async |service, _| (service.send("/unsure", "k", "").await, service.send("/unsure", "l", "").await))
        .await;
    assert_eq!(sent, ((200, "{}".to_owned(), true), (200, "\u{feff}paid".to_owned(), true)));
}

/// A key in another scope is another key, which no service has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_before_a_key_and_its_scope_is_skipped() {
    let closed = Closed::after(&[("/done", "k", "paid")]).await;
    let find = |input: &[u8]| {
        let mut child = program(&["find", &closed.name()]).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(find(&marked("account 7\r\nk\r\n")).0, Some(0));
    let (code, said) = find(&wide("account 7\r\nk\r\n"));
    assert!(code == Some(2) && said.contains("standard input: the text is UTF-16"), "{said}");
    let (code, said) = find(b"account \xff\nk\n");
    assert!(code == Some(2) && said.contains("standard input: the text is not UTF-8"), "{said}");
}

#[test]
fn a_mark_is_skipped_and_utf_16_is_named_in_each_file_of_settings() {
    let directory = directory();
    // Each is wrong in what is looked at after the file, too, so that nothing is opened.
    let one_address = [
        "proxy", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:9", "--monitor", "127.0.0.1:9",
        "--one-account", "--store", "sled:x",
    ];
    for (arguments, text, next) in [
        (&[&one_address[..], &["--config", "file"]].concat()[..], "[layer]\nretention = \"48h\"\n", "are one address"),
        (&[&one_address[..], &["--admin-token-file", "file"]].concat(), "0123456789abcdef\n", "are one address"),
        (&["check", "--plan", "file"], "url = \"http://192.0.2.1/\"\ndata = \"{}\"\n", "--yes"),
        (&["check", "http://192.0.2.1/", "--data", "@file"], "{\"a\":1}", "--yes"),
    ] {
        fs::write(directory.path().join("file"), wide(text)).unwrap();
        refused(&run_in(directory.path(), &[], arguments), "the text is UTF-16: save it as UTF-8");
        fs::write(directory.path().join("file"), marked(text)).unwrap();
        refused(&run_in(directory.path(), &[], arguments), next);
    }
    // A file of certificates in which none is found would trust none.
    for text in [wide("-----BEGIN CERTIFICATE-----\n"), b"no certificate\n".to_vec(), Vec::new()] {
        fs::write(directory.path().join("file"), text).unwrap();
        let said = run_in(directory.path(), &[], &["ls", "rediss://127.0.0.1:1", "--ca", "file"]);
        assert!(said.code == 2 && said.stderr.starts_with("idem: file: "), "{said:?}");
    }
}
