//! The state with each other condition, of what is listed and of what is exported.

use std::collections::BTreeSet;

use serde_json::Value;
use tower_idempotency::Scope;

use crate::program::{idem, json};
use crate::service::{ACCOUNT, Closed};

/// A condition, and what it selects of a path and an account.
type Condition = (&'static [&'static str], fn(path: &str, account: &str) -> bool);

const STATES: [Condition; 3] = [
    (&[], |_, _| true),
    (&["--state", "interrupted"], |path, _| path == "/unsure"),
    (&["--state", "completed"], |path, _| path == "/done"),
];
const OTHERS: [Condition; 4] = [
    (&["--status", "201"], |path, _| path == "/done"),
    (&["--label", "charge /u"], |path, _| path == "/unsure"),
    (&["--cause", "answered"], |path, _| path == "/unsure"),
    (&["--scope", "OF THE ACCOUNT"], |_, account| account == ACCOUNT),
];

// Seeded faults: the state is left out next to another condition; the other condition next to a state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_and_another_condition_both_choose() {
    let closed = Closed::after(&[]).await;
    let all = ["/done", "/unsure"].map(|path| [ACCOUNT, "account 8"].map(|account| (path, account))).concat();
    closed
        .served(async |service, _| {
            for (path, account) in &all {
                service.send_as(account, path, path, "").await;
            }
        })
        .await;
    let store = closed.name();
    let digest = |account: &str| -> String {
        Scope::new(account).unwrap().digest().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let own = digest(ACCOUNT);
    // The label and the scope of each.
    let names = |listed: &[Value]| -> BTreeSet<String> {
        listed.iter().map(|one| format!("{} {}", one["label"], one["scope"])).collect()
    };
    for (state, of_state) in STATES {
        for (other, of_other) in OTHERS {
            let options = [state, other].concat();
            let options: Vec<_> =
                options.iter().map(|&word| if word == "OF THE ACCOUNT" { &own } else { word }).collect();
            let chosen = |is_exported: bool| -> BTreeSet<String> {
                // What is exported is interrupted, unless another state is named.
                let is_left = |path: &str| state.is_empty() && is_exported && path == "/done";
                let both = all.iter().filter(|(path, account)| of_state(path, account) && of_other(path, account));
                let both = both.filter(|(path, _)| !is_left(path));
                both.map(|(path, account)| format!("\"charge {path}\" \"{}\"", digest(account))).collect()
            };
            let listed = json(0, &[&["ls", &store], &options[..]].concat());
            assert_eq!(names(listed["operations"].as_array().unwrap()), chosen(false), "ls {options:?}");
            let exported = idem(&[&["export", &store], &options[..]].concat());
            assert_eq!(exported.code, 0, "{exported:?}");
            let exported: Vec<Value> =
                exported.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(names(&exported), chosen(true), "export {options:?}");
        }
    }
}
