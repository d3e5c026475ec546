//! What the page and the API say of an operation in each state.

use serde_json::{Value, json};
use testkit::lab::asked::leave_interrupted_under;
use testkit::lab::steps::{Hold, Steps as _};
use testkit::lab::time::HOUR;
use testkit::lab::{done, hold};
use tower_idempotency::MemoryStore;
use tower_idempotency::internals::{ClaimPolicy, Completion, RunResult};
use tower_idempotency::operations::StateKind;
use tower_idempotency_admin::Access;

use crate::desk::{Desk, layer};
use crate::document::forms;

/// The members of an operation that are of its state.
fn of_state(operation: &Value) -> Value {
    let names = ["state", "server", "policy", "status", "bytes", "reason"];
    names.iter().map(|name| operation[name].clone()).collect()
}

/// Checks the word for a state, these parts of the page, its buttons, and the members of the JSON.
async fn is_shown(desk: &Desk, hold: Hold, word: &str, parts: &[&str], members: Value) {
    let page = desk.get(&format!("?id={}", hold.id)).await;
    let word = format!("<dt>State</dt><dd><span class=\"state {}\">{word}</span>", members[0].as_str().unwrap());
    for part in parts.iter().chain([&word.as_str()]) {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    let actions = forms(page.text()).into_iter().flat_map(|form| form.fields).filter(|(name, _)| name == "action");
    let expected: &[&str] = match members[0].as_str() {
        Some("interrupted") => &["answer", "release"],
        Some("completed" | "consumed") => &["forget"],
        _ => &[],
    };
    assert_eq!(actions.map(|(_, action)| action).collect::<Vec<_>>(), expected, "{members}");
    assert_eq!(of_state(&desk.get(&format!("/api/operations/{}", hold.id)).await.json()), members);
}

#[tokio::test]
async fn each_state_is_shown_with_what_it_means() {
    let store = MemoryStore::new();
    let desk = Desk::over(layer(store.clone()), Access::ALL);
    let running = hold(&store, "running").await;
    let meaning = "<p>Its handler is running. Retries wait, or are told to come again.</p>";
    let parts = [meaning, "this process sees to it"];
    is_shown(&desk, running, "in flight", &parts, json!(["running", "here", null, null, null, null])).await;

    let completed = hold(&store, "completed").await;
    store.complete(done(completed, b"\x01\xc8\x01\x00\x00recorded".as_slice(), HOUR)).await.unwrap();
    let parts = [
        "<p>Retries get the recorded answer, for as long as the service replays it.</p>",
        "<dt>Recorded answer</dt><dd>13 bytes</dd>",
    ];
    is_shown(&desk, completed, "completed", &parts, json!(["completed", null, null, 200, "13", null])).await;

    let consumed = hold(&store, "consumed").await;
    let completion = Completion { result: RunResult::Consumed { status: 418 }, ..done(consumed, "", HOUR) };
    store.complete(completion).await.unwrap();
    let parts = ["The request took effect, and its answer is not stored. Retries are refused.", ">418</span>"];
    let members = json!(["consumed", null, null, 418, null, null]);
    is_shown(&desk, consumed, "done, without its answer", &parts, members).await;

    for (policy, name, words) in [
        (ClaimPolicy::Refuse, "refuse", "refuse: retries are refused until this is settled"),
        (ClaimPolicy::Ask, "ask", "reconcile: a retry asks the application"),
        (ClaimPolicy::Rerun, "rerun", "rerun: a retry runs it again, if the service still has this policy"),
        (ClaimPolicy::Unreadable, "unreadable", "unknown: the record can't be read"),
    ] {
        let interrupted = leave_interrupted_under(policy, &store, name).await;
        let parts =
            ["It is unknown whether the request took effect.", &format!("<dt>Claimed under</dt><dd>{words}</dd>")];
        let members = json!(["interrupted", null, name, null, null, null]);
        is_shown(&desk, interrupted, "interrupted", &parts, members).await;
    }
    for (state, count) in [(StateKind::Interrupted, 4), (StateKind::Running, 1)] {
        assert_eq!(desk.listed(&state.to_string()).await.len(), count, "{state}");
    }
}
