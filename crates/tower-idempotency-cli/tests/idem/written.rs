//! What is written, line by line, and where it goes.

use std::fs::File;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::skipped;
use tower_idempotency::Fence;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Origin, Record, Records as _, Reply, State};
use tower_idempotency::{Fingerprint, RecordId};

use crate::copy::{HOUR, Place, claim};
use crate::program::{idem, json, program, run};
use crate::service::{Closed, id};

const REQUESTS: [(&str, &str, &str); 2] = [("/done", "k1", "paid"), ("/unsure", "k2", "")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_shown_with_all_that_is_known_of_it() {
    let closed = Closed::after(&REQUESTS).await;
    let store = closed.name();
    for (key, label, status, more) in
        [("k1", "charge /done", 201, "outcome"), ("k2", "charge /unsure", 502, "claimed under")]
    {
        let key = id(key).to_string();
        let value = json(0, &["show", &store, &key]);
        assert_eq!((&value["label"], &value["status"]), (&label.into(), &status.into()));
        let of = |name: &str| value[name].as_str().unwrap_or("-").to_owned();
        let more = match more {
            "outcome" => vec![(more, format!("{} bytes", value["bytes"].as_u64().unwrap()))],
            _ => vec![("cause", "answered".to_owned()), (more, of("policy"))],
        };
        let before =
            [("id", key.clone()), ("state", of("state")), ("label", label.to_owned()), ("status", status.to_string())];
        let after = [
            ("attempt", "1".to_owned()),
            ("fence", of("fence")),
            ("began", of("began")),
            ("since", of("since")),
            ("expires", of("expires")),
            ("scope", of("scope")),
            ("trace id", "-".to_owned()),
            ("server", "none".to_owned()),
        ];
        let lines = before.into_iter().chain(more).chain(after);
        let lines: Vec<_> = lines.map(|(name, value)| format!("{name:14} {value}")).collect();
        let text = idem(&["show", &store, &key]).stdout;
        let (age, shown): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("for "));
        assert_eq!((shown, age.len()), (lines.iter().map(String::as_str).collect(), 1), "{text}");
        assert!(["began", "since", "expires"].iter().all(|time| of(time).ends_with('Z')), "{value:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_shown_with_the_reason() {
    let closed = Closed::after(&REQUESTS).await;
    closed.damage(&[(b"r", id("k1"))]).await;
    let (store, key) = (closed.name(), id("k1").to_string());
    let value = json(0, &["show", &store, &key]);
    let reason = value["reason"].as_str().unwrap();
    assert!(!reason.is_empty() && value["attempt"].is_null() && value["seconds_in_state"].is_null(), "{value:#}");
    let shown = idem(&["show", &store, &key]).stdout;
    assert_eq!(shown, format!("{:14} {key}\n{:14} damaged\n{:14} {reason}\n", "id", "state", "reason"));
    let listed = idem(&["ls", &store, "--state", "damaged"]);
    assert_eq!(listed.last_line(), format!("{}  {:11}  {reason}; fence -", &key[..8], "damaged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outcome_of_a_consumer_is_given_from_a_file_and_shown() {
    let (place, message) = (Place::of("sled"), RecordId::from_bytes([7; 32]));
    let fence = place.with(async |store| claim(store, message).await).await;
    let (store, key, file) = (place.name(), fence.id.to_string(), place.path().with_file_name("outcome"));
    let fence = json(0, &["show", &store, &key])["fence"].as_str().unwrap().to_owned();
    let path = file.display().to_string();
    let settle = ["settle", &store, &key, "--fence", &fence, "--consumer", "--answer", &path, "--yes"];
    let missing = idem(&settle);
    assert!(missing.code == 2 && missing.stderr.contains(&path), "{missing:?}");
    std::fs::write(&file, "paid").unwrap();
    let wrong = idem(&settle);
    assert!(wrong.code == 2 && wrong.stderr.contains("the outcome of a message consumer is JSON"), "{wrong:?}");
    std::fs::write(&file, "{\"paid\":5}").unwrap();
    let settled = idem(&[&settle[..], &["--retention", "2days"]].concat());
    assert!(settled.stderr.contains("redelivered messages get these 10 bytes for 2days. "), "{settled:?}");
    assert_eq!((settled.code, &*settled.stdout), (0, "done\n"));
    let value = json(0, &["show", &store, &key, "--body"]);
    assert_eq!(value["outcome"], serde_json::json!({ "body": "{\"paid\":5}" }));
    assert_eq!((&value["status"], &value["bytes"]), (&Value::Null, &10.into()));
    assert_eq!(idem(&["show", &store, &key, "--body"]).last_line(), "{\"paid\":5}");
}

/// More records than a store lists at a time. The first two have their first sixteen digits in common.
const MANY: u64 = 1_003;

fn numbered(number: u64) -> RecordId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.max(2).to_be_bytes());
    id[31] = u8::from(number == 1);
    RecordId::from_bytes(id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_records_than_a_store_lists_at_a_time_are_all_listed_and_found() {
    let place = Place::of("fjall");
    place
        .with(async |store| {
            let now = store.now();
            let record = |number: u64| Record {
                fence: Fence(number + 1),
                began: now,
                since: Timestamp::from_millis(now.as_millis() - 3_600_000),
                expires: Some(now.plus(HOUR)),
                fingerprint: Fingerprint::of(b"m"),
                attempt: 1,
                origin: Origin::default(),
                state: State::Consumed { status: 200 },
                owner: Default::default(),
            };
            let records = (1..=MANY).map(|number| (numbered(number), record(number))).collect();
            assert!(store.adopt(records).await.unwrap().iter().all(|applied| applied.reply == Reply::Taken));
        })
        .await;
    let store = place.name();
    let mut expected: Vec<_> = (1..=MANY).map(|number| numbered(number).to_string()).collect();
    expected.sort();
    for (limit, next) in [(MANY, false), (MANY - 1, true)] {
        let listed = json(0, &["ls", &store, "--limit", &limit.to_string()]);
        let ids = listed["operations"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        assert_eq!(ids.collect::<Vec<_>>(), expected[..usize::try_from(limit).unwrap()]);
        assert_eq!(listed["next"].is_string(), next, "{limit}");
        let text = idem(&["ls", &store, "--limit", &limit.to_string()]);
        assert_eq!(text.last_line().starts_with("there may be more: --after "), next, "{}", text.last_line());
    }
    let one = json(0, &["show", &store, &expected[0]]);
    assert!((3_600..7_000).contains(&one["seconds_in_state"].as_u64().unwrap()), "{one:#}");
    assert_eq!(json(0, &["verify", &store])["records"], MANY);
    let last = expected.last().unwrap();
    assert_eq!(json(0, &["show", &store, &last[..16]])["id"], last.as_str());
    let [one, other] = [1, 2].map(|number| numbered(number).to_string());
    let several = idem(&["show", &store, &one[..16]]);
    let said = format!("idem: several ids begin like this; give more digits: {other} {one}\n");
    assert_eq!((several.code, several.stderr), (2, said));
    assert_eq!(json(1, &["show", &store, "ffffffff"]), Value::Null);
    for wrong in [&last[..7], &"0".repeat(65), "0123456x"] {
        let refused = idem(&["show", &store, wrong]);
        assert!(refused.code == 2 && refused.stderr.contains("a record id has 64 hex digits"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_is_no_failure_and_a_full_disk_is_one() {
    let closed = Closed::after(&REQUESTS).await;
    // It waits for its input until the reader has gone.
    let mut gone = program(&["find", &closed.name()]).spawn().unwrap();
    drop(gone.stdout.take());
    std::io::Write::write_all(&mut gone.stdin.take().unwrap(), b"account 7\nk1\n").unwrap();
    let gone = gone.wait_with_output().unwrap();
    assert_eq!((gone.status.code(), &*gone.stderr), (Some(0), &b""[..]));
    let mut full = program(&["ls", &closed.name()]);
    full.stdin(Stdio::null()).stdout(File::options().write(true).open("/dev/full").unwrap());
    let full = full.output().unwrap();
    let said = String::from_utf8(full.stderr).unwrap();
    assert!(full.status.code() == Some(3) && said.contains("the output can't be written"), "{said}");
}

/// On a terminal, which `script` makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_asked_for_the_account_and_the_key() {
    const PROMISE: &str = "that a terminal is asked for a key";
    if Command::new("script").arg("--version").output().is_err() {
        return skipped(PROMISE, "the program script is missing");
    }
    let closed = Closed::after(&REQUESTS).await;
    let find = format!("{} find {}", env!("CARGO_BIN_EXE_idem"), closed.name());
    let mut script = Command::new("script");
    script.args(["-qec", &find, "/dev/null"]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = run(script, "account 7\nk2\n");
    assert_eq!(said.code, 0, "{said:?}");
    for part in ["The account or tenant that the key belongs to", "The idempotency key: ", "interrupted"] {
        assert!(said.stdout.contains(part), "{part}: {said:?}");
    }
}
