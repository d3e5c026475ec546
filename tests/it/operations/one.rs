//! One operation is found by key and scope, and shown without its key, its scope or its body.

use std::time::Duration;

use testkit::lab::disk::{Disk, Table as _};
use testkit::lab::{Lab, id, on_disk, post};
use testkit::on_both;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::EffectError;
use tower_idempotency::operations::{Answer, Cursor, Filter, Form, OperationState, Operations, Server, StateKind};
use tower_idempotency::store::Store;
use tower_idempotency::{Fingerprint, IdempotencyLayer, Key, MemoryStore, Once, SledStore};

use super::{account, lab, layer, send};

/// The length of the answer's body, in chunks on disk.
const LONG: usize = 100_000;

async fn is_found_and_shown<St: Store + Clone>(store: St) {
    let layer = layer(store);
    let lab = lab(layer.clone());
    send(&lab, "/a/201", "one", "the-key").await;
    send(&lab, "/b/502", "one", "another").await;
    let operations = layer.operations();
    let key = Key::new("the-key").unwrap();
    assert_eq!(operations.find(None, &key).await.unwrap(), None, "without its scope");
    assert_eq!(operations.find(Some(&account("other")), &key).await.unwrap(), None);
    let found = operations.find(Some(&account("one")), &key).await.unwrap().unwrap();
    assert_eq!((found.label(), found.scope()), (Some("label of /a/201"), Some(account("one").digest())));
    let OperationState::Completed { status, bytes } = found.state else { panic!("{found:?}") };
    assert_eq!((status, found.attempt, found.server), (Some(201), 1, Server::None));
    assert!(bytes > 0 && found.expires.is_some() && found.began <= found.since);
    assert_eq!(operations.inspect(found.id).await.unwrap().as_ref(), Some(&found));
    let listed = operations.list(&Filter::all().answered_with(201), None, 9).await.unwrap().operations;
    assert_eq!(listed, std::slice::from_ref(&found));
    assert!(!format!("{found:?}").contains("body of"), "no body is shown");
    let Some(Answer::Http(answer)) = operations.outcome(found.id).await.unwrap() else { panic!("no answer") };
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.into_body(), "body of /a/201", "only on request");
    let interrupted = operations.find(Some(&account("one")), &Key::new("another").unwrap()).await.unwrap().unwrap();
    assert_eq!(interrupted.state.status(), Some(502));
    assert!(operations.outcome(interrupted.id).await.unwrap().is_none());
    assert!(interrupted.derived_key("charge").is_some());
}

#[tokio::test]
async fn an_operation_is_found_by_key_and_scope_and_shown_without_its_body() {
    is_found_and_shown(MemoryStore::new()).await;
    let (_directory, sled) = on_disk(SledStore::builder());
    is_found_and_shown(sled).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder());
        is_found_and_shown(fjall).await;
    }
}

on_both!(a_long_answer_is_listed_with_its_status_and_length);
async fn a_long_answer_is_listed_with_its_status_and_length<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let layer = IdempotencyLayer::new(store);
    let lab = Lab::new(layer.clone(), |_| async { (http::StatusCode::ACCEPTED, vec![b'x'; LONG]) });
    lab.post("k", "a").await;
    let listed = layer.operations().list(&Filter::all(), None, 9).await.unwrap().operations.remove(0);
    let OperationState::Completed { status: Some(202), bytes } = listed.state else { panic!("{listed:?}") };
    assert!(bytes > LONG as u64);
}

async fn what_runs_is_listed<St: Store + Clone>(store: St) {
    let layer = IdempotencyLayer::new(store);
    let (lab, gate) = Lab::gated(layer.clone());
    let running = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let operations = layer.operations();
    let listed = operations.list(&Filter::all().in_state(StateKind::Running), None, 9).await.unwrap().operations;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].id, listed[0].server, &listed[0].state), (id("k"), Server::Here, &OperationState::Running));
    // Page by page, each run is listed once. Seeded fault: a page begins with the last run of the one before.
    let mut others = Vec::new();
    for key in ["other", "third"] {
        others.push(lab.spawn(post(key, "a")));
        gate.arrival().await;
    }
    let (mut ids, mut next) = (Vec::new(), None::<Cursor>);
    while ids.is_empty() || next.is_some() {
        let page = operations.list(&Filter::all().in_state(StateKind::Running), next.as_ref(), 1).await.unwrap();
        ids.extend(page.operations.iter().map(|operation| operation.id));
        next = page.next;
        assert!(ids.len() <= 3, "{ids:?}");
    }
    let mut all = ["k", "other", "third"].map(id);
    all.sort();
    assert_eq!(ids, all);
    gate.open();
    running.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    let after = operations.list(&Filter::all().in_state(StateKind::Running), None, 9).await.unwrap();
    assert!(after.operations.is_empty() && after.next.is_none());
}

#[tokio::test]
async fn a_run_under_way_is_listed_until_it_ends() {
    what_runs_is_listed(MemoryStore::new()).await;
    let (_directory, sled) = on_disk(SledStore::builder());
    what_runs_is_listed(sled).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder());
        what_runs_is_listed(fjall).await;
    }
}

#[tokio::test]
async fn a_consumers_operation_is_listed_with_its_label_and_its_outcome_is_json() {
    let (store, key) = (MemoryStore::new(), Key::new("message").unwrap());
    let once = Once::new(store.clone()).label("mailer: invoice 17");
    let effect = |_| async move { Ok::<_, EffectError<()>>(("sent".to_owned(), 17)) };
    once.run(id("message"), Fingerprint::of(b"m"), effect).await.unwrap();
    let operations = once.operations();
    let found = operations.find(None, &key).await.unwrap().unwrap();
    assert_eq!((found.label(), operations.form()), (Some("mailer: invoice 17"), Form::Bytes));
    assert_eq!(found.state, OperationState::Completed { status: None, bytes: 11 });
    assert!(
        matches!(operations.outcome(found.id).await.unwrap(), Some(Answer::Bytes(found)) if found == r#"["sent",17]"#)
    );
    // A tool that has the store alone sees it too.
    assert_eq!(
        Operations::over(store, testkit::lab::time::DAY).find(None, &key).await.unwrap().unwrap().label(),
        found.label()
    );
}

on_both!(a_damaged_record_is_listed_as_damaged_and_the_others_are_listed);
async fn a_damaged_record_is_listed_as_damaged_and_the_others_are_listed<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    for key in ["good", "bad"] {
        lab.post(key, "a").await;
    }
    let (records, key) = (store.records(), [&b"r"[..], id("bad").as_bytes()].concat());
    let mut bytes = records.get(&key).unwrap().to_vec();
    bytes[40] ^= 1;
    records.insert(key, bytes);
    let operations = layer.operations();
    let damaged = operations.list(&Filter::all().in_state(StateKind::Damaged), None, 9).await.unwrap().operations;
    assert_eq!(damaged.iter().map(|operation| operation.id).collect::<Vec<_>>(), [id("bad")]);
    assert_eq!(operations.list(&Filter::all(), None, 9).await.unwrap().operations.len(), 2);
    // It has no other properties than its state. Seeded faults: it is old; it has a status; its time, which is not
    // known, is one.
    let damaged = || Filter::all().in_state(StateKind::Damaged);
    let (never, late) = (Timestamp::from_millis(0), Timestamp::from_millis(u64::MAX));
    for filter in [
        damaged().older_than(Duration::ZERO),
        damaged().answered_with(200),
        damaged().before(late),
        damaged().since(never),
        damaged().since(never).before(late),
    ] {
        assert!(operations.list(&filter, None, 9).await.unwrap().operations.is_empty(), "{filter:?}");
    }
}

#[tokio::test]
async fn a_list_shows_no_expired_record() {
    let (store, clock) = super::clocked();
    let layer = layer(store).retention(testkit::lab::time::SECOND);
    send(&lab(layer.clone()), "/200", "one", "k").await;
    let operations = layer.operations();
    assert_eq!(operations.list(&Filter::all(), None, 9).await.unwrap().operations.len(), 1);
    clock.advance(testkit::lab::time::SECOND);
    assert!(operations.list(&Filter::all(), None, 9).await.unwrap().operations.is_empty());
}
