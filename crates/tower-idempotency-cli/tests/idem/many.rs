//! Many operations are settled by a file, which `export` begins.

use std::process::Command;

use serde_json::{Value, json};
use tower_idempotency::RecordId;

use crate::program::{Said, idem, program, run};
use crate::service::{Closed, id};

const KEYS: [&str; 5] = ["k1", "k2", "k3", "k4", "k5"];

async fn interrupted() -> Closed {
    let requests = KEYS.map(|key| ("/steps", key, ""));
    Closed::after(&[&requests[..], &[("/done", "k9", "paid")]].concat()).await
}

fn lines(said: &Said) -> Vec<Value> {
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn settle(store: &str, more: &[&str]) -> Command {
    program(&[&["settle", store, "--from", "-"], more].concat())
}

fn settled(store: &str, input: &str, code: i32) -> Value {
    let said = run(settle(store, &["--yes", "--json"]), input);
    assert_eq!(said.code, code, "{said:?}");
    said.json()
}

/// What a ledger would say: the first two have taken effect, of the last it is not known.
fn decided(mut exported: Vec<Value>) -> Vec<Value> {
    for line in &mut exported {
        let key = KEYS.into_iter().find(|key| line["id"] == id(key).to_string()).unwrap();
        match key {
            "k1" | "k2" => {
                let body = json!({ "charge": line["derived_keys"]["charge"] }).to_string();
                let headers = json!([["content-type", "application/json"]]);
                line["action"] = "answer".into();
                line["answer"] = json!({ "status": 201, "headers": headers, "body": body });
            }
            "k5" => {}
            _ => line["action"] = "release".into(),
        }
    }
    exported
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operations_of_a_file_are_settled_and_the_file_may_be_given_again() {
    let closed = interrupted().await;
    let store = closed.name();
    let exported = lines(&idem(&["export", &store, "--step", "charge"]));
    assert_eq!(exported.len(), KEYS.len(), "only the interrupted ones");
    let (_, keys, _) = closed.served(async |service, _| service.send("/steps", "other", "").await).await;
    assert_eq!(exported[0]["derived_keys"]["charge"].as_str().unwrap().len(), keys.split_once(' ').unwrap().0.len());
    let file = decided(exported);

    let unasked = run(settle(&store, &[]), &text(&file));
    assert!(unasked.code == 2 && unasked.stdout.is_empty(), "{unasked:?}");
    for said in
        ["2 get an answer", "for 1day", "2 are taken as not done", "RUNS the handler", "1 lines without", "--yes"]
    {
        assert!(unasked.stderr.contains(said), "{said}: {unasked:?}");
    }
    // It was cut off after three lines.
    let part = settled(&store, &text(&file[..3]), 0);
    let whole = settled(&store, &text(&file), 0);
    let sum = |name: &str| part[name].as_u64().unwrap() + whole[name].as_u64().unwrap();
    assert_eq!((sum("done"), whole["undecided"].as_u64(), whole["stale"].as_u64()), (4, Some(1), Some(0)), "{whole:#}");
    assert_eq!(whole["settled_before"], part["done"], "{whole:#}");
    assert_eq!(whole["results"].as_array().unwrap().len(), 4);
    let again = run(settle(&store, &["--yes"]), &text(&file));
    assert_eq!((again.code, again.last_line()), (0, "0 done; 4 settled before; 1 left without an action"));

    let answers = closed
        .served(async |service, _| (service.send("/steps", "k1", "").await, service.send("/steps", "k3", "").await))
        .await;
    let charge = file.iter().find(|line| line["id"] == id("k1").to_string()).unwrap()["derived_keys"]["charge"].clone();
    assert_eq!(answers.0, (201, json!({ "charge": charge }).to_string(), true));
    assert_eq!((answers.1.0, answers.1.2), (502, false), "it runs again");
    // It is interrupted again, under another fence: the file is no longer right.
    let stale = settled(&store, &text(&file), 1);
    assert_eq!((&stale["stale"], &stale["done"]), (&1.into(), &0.into()), "{stale:#}");
    let left = lines(&idem(&["export", &store]));
    assert_eq!(left.len(), 3, "the new key, the one without an action, and the one that ran again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_a_line_that_is_not_understood_changes_nothing() {
    let closed = interrupted().await;
    let store = closed.name();
    let mut file = decided(lines(&idem(&["export", &store])));
    file[4]["acton"] = "release".into();
    let refused = run(settle(&store, &["--yes"]), &text(&file));
    assert!(refused.code == 2 && refused.stderr.contains("line 5: there is no field `acton`"), "{refused:?}");
    assert!(refused.stderr.contains("nothing was changed"), "{refused:?}");
    assert_eq!(lines(&idem(&["export", &store])).len(), KEYS.len());
    let undecided = settled(&store, &text(&lines(&idem(&["export", &store]))), 1);
    assert_eq!((&undecided["undecided"], &undecided["done"]), (&5.into(), &0.into()));
    for wrong in [&["--fence", "1"][..], &["--release"], &["--status", "200"], &["7e7e7e7e"]] {
        let refused = run(settle(&store, &[wrong, &["--yes"]].concat()), "");
        assert_eq!(refused.code, 2, "{wrong:?}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_has_the_operations_that_were_asked_for_and_no_key() {
    let closed = interrupted().await;
    let store = closed.name();
    for (selected, number) in [
        (&["--cause", "answered"][..], 5),
        (&["--cause", "panicked"], 0),
        (&["--label", "charge /st"], 5),
        (&["--before", "2026-01-01T00:00:00Z"], 0),
        (&["--state", "completed"], 1),
    ] {
        let said = idem(&[&["export", &store], selected].concat());
        assert_eq!(lines(&said).len(), number, "{selected:?}");
        assert!(!said.all().contains("account 7") && !said.all().contains("k3"), "{said:?}");
    }
}

/// More than are made at a time.
const MANY: usize = 420;

/// The lines of many operations that were left interrupted.
async fn many() -> (Closed, Vec<Value>) {
    let closed = Closed::after(&[]).await;
    closed
        .served(async |service, _| {
            for number in 0..MANY {
                service.send("/unsure", &number.to_string(), "").await;
            }
        })
        .await;
    let lines = lines(&idem(&["export", &closed.name()]));
    assert_eq!(lines.len(), MANY);
    (closed, lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_can_never_be_done_holds_no_other_one_up() {
    let (closed, mut file) = many().await;
    for line in &mut file {
        line["action"] = "release".into();
    }
    // Its record is damaged meanwhile.
    let damaged = file[0]["id"].as_str().unwrap().parse::<RecordId>().unwrap();
    closed.damage(&[(b"r", damaged)]).await;
    let path = closed.path().with_extension("changes");
    std::fs::write(&path, text(&file)).unwrap();
    let from = path.display().to_string();
    let said = idem(&["settle", &closed.name(), "--from", &from, "--yes", "--json"]);
    let value = said.json();
    assert_eq!((said.code, &value["failed"], &value["not_tried"]), (1, &1.into(), &0.into()), "{value:#}");
    assert_eq!((&value["results"][0]["result"], value["done"].as_u64()), (&"failed".into(), Some(MANY as u64 - 1)));
    std::fs::remove_file(path).unwrap();
}

/// The effect took place: a key that is free is no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_was_to_be_answered_and_is_free_is_stale() {
    let closed = interrupted().await;
    let store = closed.name();
    let file = decided(lines(&idem(&["export", &store])));
    let answer = file.iter().find(|line| line["action"] == "answer").unwrap();
    let (id, fence) = (answer["id"].as_str().unwrap(), answer["fence"].as_str().unwrap());
    assert_eq!(idem(&["settle", &store, id, "--fence", fence, "--release", "--yes"]).code, 0);
    let stale = settled(&store, &text(std::slice::from_ref(answer)), 1);
    assert_eq!((&stale["stale"], &stale["settled_before"]), (&1.into(), &0.into()), "{stale:#}");
    assert_eq!(settled(&store, "", 0)["results"], json!([]), "nothing is to be settled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_go_on_when_the_reader_of_the_output_has_gone() {
    let (closed, mut file) = many().await;
    for line in &mut file {
        line["action"] = "release".into();
    }
    let mut child = settle(&closed.name(), &["--yes"]).spawn().unwrap();
    drop(child.stdout.take());
    let errors = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(errors).unwrap());
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text(&file).as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let audited = reader.join().unwrap();
    assert_eq!(audited.matches("tower_idempotency::audit").count(), MANY);
    assert!(lines(&idem(&["export", &closed.name()])).is_empty());
}
