//! A directory that no process has open.

use std::fs;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::skipped;
use tower_idempotency::Scope;

use crate::program::{idem, json, program, run};
use crate::service::{ACCOUNT, Closed, directory, id};

const REQUESTS: [(&str, &str, &str); 4] =
    [("/done", "k1", "paid"), ("/unsure", "k2", ""), ("/unsure", "k3", ""), ("/done", "k4", "paid too")];

fn ids(value: &Value) -> Vec<String> {
    let operations = value["operations"].as_array().unwrap();
    operations.iter().map(|operation| operation["id"].as_str().unwrap().to_owned()).collect()
}

fn sorted(keys: &[&str]) -> Vec<String> {
    let mut ids: Vec<_> = keys.iter().map(|key| id(key).to_string()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_the_operations_that_were_asked_for() {
    let closed = Closed::after(&REQUESTS).await;
    let store = closed.name();
    let scope: String = Scope::new(ACCOUNT).unwrap().digest().iter().map(|byte| format!("{byte:02x}")).collect();
    for (selected, expected) in [
        (&[][..], &["k1", "k2", "k3", "k4"][..]),
        (&["--state", "interrupted"], &["k2", "k3"]),
        (&["--state", "completed"], &["k1", "k4"]),
        (&["--status", "201"], &["k1", "k4"]),
        (&["--status", "502"], &["k2", "k3"]),
        (&["--cause", "answered"], &["k2", "k3"]),
        (&["--cause", "panicked"], &[]),
        (&["--label", "charge /unsure"], &["k2", "k3"]),
        (&["--label", "harge"], &[]),
        (&["--before", "2026-01-01 00:00:00"], &[]),
        (&["--since", "2026-01-01T00:00:00Z"], &["k1", "k2", "k3", "k4"]),
        (&["--older-than", "24h"], &[]),
        (&["--scope", &scope], &["k1", "k2", "k3", "k4"]),
        (&["--scope", &"0".repeat(64)], &[]),
    ] {
        let mut found = ids(&json(0, &[&["ls", &store], selected].concat()));
        found.sort();
        assert_eq!(found, sorted(expected), "{selected:?}");
    }
    let text = idem(&["ls", &store]);
    assert!(
        text.code == 0
            && text.stdout.contains("charge /unsure")
            && text.stdout.contains("interrupted")
            && !text.stdout.contains(&id("k1").to_string()),
        "{text:?}"
    );
    // The head is the first line.
    let place = text.stdout.find("CAUSE").unwrap();
    let listed = json(0, &["ls", &store]);
    for (key, cause) in [("k2", Some("answered")), ("k1", None)] {
        let row = text.stdout.lines().find(|row| row.starts_with(&id(key).short())).unwrap();
        assert_eq!(row[place..].split_whitespace().next(), cause.or(Some("-")), "{text:?}");
        let listed = listed["operations"].as_array().unwrap().iter().find(|one| one["id"] == id(key).to_string());
        assert_eq!(listed.unwrap()["cause"].as_str(), cause, "{key}");
    }

    let (mut found, mut after, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let place = after.iter().flat_map(|after| ["--after", after]);
        let page = json(0, &["ls", &store, "--limit", "1"].into_iter().chain(place).collect::<Vec<_>>());
        found.extend(ids(&page));
        pages += 1;
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    // The interrupted ones come first, as they came, and then the others.
    let expected = [vec![id("k2").to_string(), id("k3").to_string()], sorted(&["k1", "k4"])].concat();
    assert!(found == expected && pages >= 4, "{found:?}");
    assert_eq!(json(0, &["ls", &store, "--disputed"])["operations"], Value::Array(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_on_standard_input_finds_its_operation() {
    let closed = Closed::after(&REQUESTS).await;
    let find = |input: &str| run(program(&["find", &closed.name(), "--json"]), input);
    for input in ["account 7\nk2\n", "account 7\n\"k2\"", "\\x6163636f756e742037\nk2"] {
        let found = find(input);
        assert_eq!(found.code, 0, "{found:?}");
        let found = found.json();
        assert_eq!(
            (found["id"].as_str(), &found["state"]),
            (Some(&*id("k2").to_string()), &Value::from("interrupted"))
        );
        assert_eq!(found["label"], "charge /unsure");
    }
    for input in ["k2\n", "account 8\nk2\n", "account 7\nk9\n"] {
        let found = find(input);
        assert_eq!((found.code, found.json()), (1, Value::Null), "{input:?}");
    }
    let lost = run(program(&["find", &closed.name()]), "account 8\nk2\n");
    assert!(lost.stdout.contains("idem show") && lost.stdout.contains("idem ls --scope DIGEST"), "{lost:?}");
    assert_eq!(find("").code, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_shown_by_the_digits_that_a_log_has_and_its_body_on_request() {
    let closed = Closed::after(&REQUESTS).await;
    let (store, whole) = (closed.name(), id("k1").to_string());
    for shown in [&whole[..], &whole[..8], &whole[..8].to_uppercase()] {
        let shown = json(0, &["show", &store, shown]);
        assert_eq!((shown["id"].as_str(), &shown["status"]), (Some(&*whole), &Value::from(201)));
        assert!(
            shown["outcome"].is_null() && shown["fence"].is_string() && shown["began"].as_str().unwrap().ends_with('Z')
        );
    }
    let shown = json(0, &["show", &store, &whole, "--body"]);
    assert_eq!((&shown["outcome"]["body"], &shown["outcome"]["status"]), (&Value::from("paid"), &Value::from(201)));
    assert_eq!(shown["outcome"]["headers"]["location"][0], "/charges/1");
    let text = idem(&["show", &store, &whole, "--body"]);
    assert!(text.stdout.contains("\nserver         none\n"), "{text:?}");
    assert!(text.stdout.contains("location: /charges/1") && text.last_line() == "paid", "{text:?}");
    assert_eq!(json(1, &["show", &store, &"0".repeat(64)]), Value::Null);
    // The variable names the store, too.
    let mut command = program(&["show", &whole, "--json"]);
    command.env("IDEM_STORE", &store);
    assert_eq!(run(command, "").json()["id"].as_str(), Some(&*whole));
}

/// By which the services that the handler calls know the operation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_that_the_handler_derives_for_a_step_is_shown() {
    let closed = Closed::after(&[]).await;
    let (_, keys, _) = closed.served(async |service, _| service.send("/steps", "k1", "").await).await;
    let (charge, mail) = keys.split_once(' ').unwrap();
    let (store, id) = (closed.name(), id("k1").to_string());
    let shown = json(0, &["show", &store, &id, "--step", "charge", "--step", "mail"]);
    assert_eq!(shown["state"], "interrupted");
    assert_eq!((&shown["derived_keys"]["charge"], &shown["derived_keys"]["mail"]), (&charge.into(), &mail.into()));
    let text = idem(&["show", &store, &id, "--step", "charge", "--body"]).stdout;
    assert!(text.contains(&format!("\nderived key    charge: {charge}\n")), "{text}");
    assert!(json(0, &["show", &store, &id])["derived_keys"].is_null());
}

fn fence(store: &str, key: &str) -> String {
    json(0, &["show", store, &id(key).to_string()])["fence"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_gets_the_answer_that_an_operator_has_given() {
    let closed = Closed::after(&REQUESTS).await;
    let (store, key) = (closed.name(), id("k2").to_string());
    let fence = fence(&store, "k2");
    let settle = [
        "settle", &store, &key, "--fence", &fence, "--answer", "-", "--status", "202", "--header",
        " location : /charges/2 ",
    ];
    // There is no terminal to ask on, and no name: one refusal says so, and what would be done.
    let mut anonymous = program(&settle);
    anonymous.env_remove("USER");
    let unasked = run(anonymous, "receipt");
    assert_eq!((unasked.code, &*unasked.stdout), (2, ""), "{unasked:?}");
    for said in [
        &key,
        "charge /unsure",
        "interrupted for",
        &fence,
        "retries get 202 Accepted with 1 headers",
        "7 bytes",
        "--yes",
        "--actor",
    ] {
        assert!(unasked.stderr.contains(said), "{said}: {unasked:?}");
    }
    let unasked = run(program(&settle), "receipt");
    assert!(unasked.code == 2 && unasked.stderr.contains("--yes"), "{unasked:?}");
    assert!(!unasked.stderr.contains("--actor"), "{unasked:?}");
    let settled = run(program(&[&settle[..], &["--yes", "--json"]].concat()), "receipt");
    assert_eq!((settled.code, &settled.json()["result"]), (0, &Value::from("done")), "{settled:?}");
    for said in [
        "charge /unsure", "retries get 202 Accepted", "7 bytes", "tower_idempotency::audit", "actor=\"alice\"",
        "answer", &key,
    ] {
        assert!(settled.stderr.contains(said), "{said}: {settled:?}");
    }
    assert!(!settled.all().contains("receipt"), "{settled:?}");
    let shown = json(0, &["show", &store, &key, "--body"])["outcome"].clone();
    assert_eq!((&shown["status"], &shown["headers"]["location"][0]), (&202.into(), &"/charges/2".into()), "{shown:#}");
    // It is settled, so the fence has had its use.
    assert_eq!(run(program(&[&settle[..], &["--yes"]].concat()), "other").code, 1);
    let retry = closed.served(async |service, _| service.send("/unsure", "k2", "").await).await;
    assert_eq!(retry, (202, "receipt".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_or_forgotten_operation_runs_again_and_its_consequence_is_said() {
    let closed = Closed::after(&REQUESTS).await;
    let store = closed.name();
    let (release, forget) = (fence(&store, "k3"), fence(&store, "k4"));
    let [k3, k4] = ["k3", "k4"].map(|key| id(key).to_string());
    let released = idem(&["settle", &store, &k3, "--fence", &release, "--release", "--yes", "--actor", "bob"]);
    assert!(released.code == 0 && released.stderr.contains("the next retry RUNS"), "{released:?}");
    assert!(released.stderr.contains("actor=\"bob\"") && released.stderr.contains("release"), "{released:?}");
    let forgotten = idem(&["forget", &store, &k4[..8], "--fence", &forget, "--yes"]);
    assert!(forgotten.code == 0 && forgotten.stderr.contains("a retry that still comes RUNS"), "{forgotten:?}");
    let answers = closed
        .served(async |service, _| {
            (service.send("/done", "k4", "once more").await, service.send("/done", "k1", "paid").await)
        })
        .await;
    assert_eq!(answers.0, (201, "once more".to_owned(), false));
    assert_eq!(answers.1, (201, "paid".to_owned(), true));
}

// A seeded fault: the record goes with its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_whose_answer_is_forgotten_does_not_run_again() {
    let closed = Closed::after(&REQUESTS).await;
    let store = closed.name();
    let (k1, of_k1) = (id("k1").to_string(), fence(&store, "k1"));
    let forget = ["forget", &store, &k1, "--fence", &of_k1, "--answer", "--yes"];
    let forgotten = idem(&forget);
    assert!(forgotten.code == 0 && forgotten.stderr.contains("The key stays used"), "{forgotten:?}");
    assert_eq!(idem(&forget).code, 1, "it has no answer any more");
    assert_eq!(json(0, &["show", &store, &k1])["state"], "consumed");
    let retry = closed.served(async |service, _| service.send("/done", "k1", "paid").await).await;
    assert_eq!((retry.0, retry.2), (409, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_does_not_fit_changes_nothing() {
    let closed = Closed::after(&REQUESTS).await;
    let store = closed.name();
    let (done, interrupted) = (fence(&store, "k1"), fence(&store, "k2"));
    let [k1, k2] = ["k1", "k2"].map(|key| id(key).to_string());
    for wrong in [
        &["settle", &store, &k2, "--fence", "7", "--release"][..],
        &["settle", &store, &k1, "--fence", &done, "--release"],
        &["forget", &store, &k2, "--fence", &interrupted],
        &["forget", &store, &"0".repeat(64), "--fence", "7"],
    ] {
        let said = json(1, &[wrong, &["--yes"]].concat());
        assert_eq!(said["result"], "stale", "{wrong:?}");
    }
    for (how, said) in [
        (&["--status", "199"][..], "the status 199 can't"),
        (&["--status", "1000"], "the status 1000 can't"),
        (&["--header", "location"], "a header without a colon can't"),
        (&["--header", "a b: c"], "a header of such a name can't"),
        (&["--header", "x: \u{7}"], "such a value of x can't"),
    ] {
        let refused =
            idem(&[&["settle", &store, &k2, "--fence", &interrupted, "--answer", "-", "--yes"], how].concat());
        assert!(refused.code == 2 && refused.stderr.contains(said), "{refused:?}");
    }
    let blank = idem(&["forget", &store, &k1, "--fence", &done, "--yes", "--actor", " "]);
    assert!(blank.code == 2 && blank.stderr.contains("--actor NAME"), "{blank:?}");
    let mut anonymous = program(&["forget", &store, &k1, "--fence", &done, "--yes"]);
    anonymous.env_remove("USER");
    let anonymous = run(anonymous, "");
    assert!(anonymous.code == 2 && anonymous.stderr.contains("--actor"), "{anonymous:?}");
    assert!(anonymous.stderr.contains("RUNS the handler") && !anonymous.stderr.contains("--yes"), "{anonymous:?}");
    assert_eq!(idem(&["forget", &store, &k1, "--fence", &done]).code, 2);
    assert_eq!(ids(&json(0, &["ls", &store])).len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_from_a_file_of_json_says_that_it_is_json() {
    let closed = Closed::after(&REQUESTS).await;
    let store = closed.name();
    for (key, file, header, expected) in [
        ("k2", "receipt.json", None, "application/json"),
        ("k3", "problem.JSON", Some("content-type: application/problem+json"), "application/problem+json"),
    ] {
        let file = closed.path().with_file_name(file);
        std::fs::write(&file, "{}").unwrap();
        let (id, fence, file) = (id(key).to_string(), fence(&store, key), file.display().to_string());
        let mut settle = vec!["settle", &store, &id, "--fence", &fence, "--answer", &file, "--yes"];
        settle.extend(header.into_iter().flat_map(|header| ["--header", header]));
        assert_eq!(idem(&settle).code, 0);
        let shown = json(0, &["show", &store, &id, "--body"]);
        assert_eq!(shown["outcome"]["headers"], serde_json::json!({ "content-type": [expected] }), "{shown:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damaged_record_is_reported() {
    let long = "x".repeat(10_000);
    let closed =
        Closed::after(&[("/done", "k1", "paid"), ("/done", "k2", &long), ("/done", "k3", &long), ("/done", "k4", "")])
            .await;
    let store = closed.name();
    assert_eq!(json(0, &["verify", &store])["records"], 4);
    // A short one is in its record, and a long one in chunks.
    closed.damage(&[(b"r", id("k1")), (b"c", id("k3"))]).await;
    let found = json(1, &["verify", &store]);
    let mut reported: Vec<_> =
        found["damaged"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    reported.sort();
    assert_eq!(reported, sorted(&["k1", "k3"]), "{found:#}");
    assert_eq!((&found["records"], &found["states"]["completed"]), (&Value::from(4), &Value::from(2)));
    let text = idem(&["verify", &store]);
    assert_eq!((text.code, text.last_line()), (1, "4 records were read, 2 are damaged"));
    for one in found["damaged"].as_array().unwrap() {
        let line = format!("{}  {}", one["id"].as_str().unwrap(), one["reason"].as_str().unwrap());
        assert!(text.stdout.lines().any(|one| one == line), "{line}: {text:?}");
    }
    assert_eq!(json(0, &["ls", &store, "--state", "damaged"])["operations"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_a_service_has_open_is_refused() {
    let closed = Closed::after(&REQUESTS).await;
    closed
        .served(async |service, _| {
            for command in ["ls", "verify"] {
                let refused = idem(&[command, &closed.name()]);
                assert_eq!((refused.code, &*refused.stdout), (3, ""), "{refused:?}");
                assert!(refused.stderr.contains("is held open by another process"), "{refused:?}");
            }
            assert_eq!(service.send("/done", "k1", "paid").await, (201, "paid".to_owned(), true));
        })
        .await;
}

#[test]
fn no_store_is_made() {
    let directory = directory();
    let (missing, empty) = (directory.path().join("missing"), directory.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    for path in [&missing, &empty] {
        for command in ["ls", "verify", "doctor"] {
            let said = idem(&[command, path.to_str().unwrap()]);
            assert!(said.code == 3 && said.all().contains("there is no store"), "{said:?}");
        }
    }
    assert!(!missing.exists() && fs::read_dir(&empty).unwrap().next().is_none());
}

/// The service could not read what another user's process has made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_user_is_refused() {
    let closed = Closed::after(&REQUESTS).await;
    if let Err(error) = chown(closed.path(), Some(65_534), None) {
        return skipped("that another user's directory is refused", &error.to_string());
    }
    for (command, code) in [("ls", 2), ("doctor", 3)] {
        let refused = idem(&[command, &closed.name()]);
        assert!(refused.code == code && refused.all().contains("belongs to user 65534"), "{refused:?}");
    }
    let (from, to) = (Closed::after(&REQUESTS).await, directory().path().join("store").display().to_string());
    for (from, to) in [(closed.name(), format!("fjall:{to}")), (from.name(), closed.name())] {
        let refused = idem(&["copy", &from, &to]);
        assert!(refused.code == 2 && refused.stderr.contains("belongs to user 65534"), "{refused:?}");
    }
}

/// On a terminal, which `script` makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_made_only_after_it_was_confirmed() {
    let closed = Closed::after(&REQUESTS).await;
    let (store, key) = (closed.name(), id("k1").to_string());
    let fence = fence(&store, "k1");
    let on_a_terminal = |command: &str| {
        let command = format!("{} {command}", env!("CARGO_BIN_EXE_idem"));
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).env("USER", "alice");
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        script
    };
    if Command::new("script").arg("--version").output().is_err() {
        return skipped("that a change is confirmed", "the program script is missing");
    }
    for (typed, code, is_there) in [("no\n", 2, 0), ("\n", 2, 0), ("yes\n", 0, 1)] {
        let said = run(on_a_terminal(&format!("forget {store} {key} --fence {fence}")), typed);
        assert_eq!(said.code, code, "{typed:?} {said:?}");
        assert!(said.stdout.contains("RUNS the handler") && said.stdout.contains("Type yes"), "{said:?}");
        assert_eq!(idem(&["show", &store, &key]).code, is_there, "{typed:?}");
    }
    // Nothing can be asked where the answer of the operation is typed.
    let (key, file) = (id("k2").to_string(), closed.path().with_extension("answer"));
    fs::write(&file, "paid").unwrap();
    let of_file = format!("--answer {}", file.display());
    let fence = crate::sled::fence(&store, "k2");
    for (how, is_asked) in [("--answer -", false), (&*of_file, true), ("--release", true)] {
        let said = run(on_a_terminal(&format!("settle {store} {key} --fence {fence} {how}")), "no\n\u{4}");
        assert_eq!((said.code, said.stdout.contains("Type yes")), (2, is_asked), "{how}: {said:?}");
    }
    fs::remove_file(file).unwrap();
}
