//! Rows that the store can't read, and writes that a database does not take.

use std::time::Duration;

use bytes::Bytes;
use testkit::Gate;
use testkit::lab::listed::interrupted;
use testkit::lab::operator::{Operated as _, answer};
use testkit::lab::{Lab, id, post};
use tower_idempotency::internals::List;
use tower_idempotency::internals::Records as _;
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::{IdempotencyLayer, OnInterrupted, RecordId};
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_shared::{Backend as _, Clocks, Expect, Kind, NewExpiry, NewFence, Stamp, Token, Write};

use crate::world::{DEATH, Effects, LEASE, row, two};

/// Overwrites the row of `id` after `change` has changed it.
async fn overwrite(backend: &MemoryBackend, id: RecordId, change: impl FnOnce(&mut Write)) {
    let row = row(backend, id).expect("there is a row");
    let mut write = Write {
        id,
        expect: Expect::Token(row.token),
        token: Token([7; 16]),
        fence: NewFence::Keep,
        kind: row.kind,
        session: row.session,
        until: row.until.map(|_| Duration::from_secs(600)),
        began: Stamp::Keep,
        since: Stamp::Keep,
        expires: NewExpiry::Keep,
        state: row.state,
    };
    change(&mut write);
    backend.put(Clocks::default(), &[write]).await.unwrap();
}

fn damaged(state: &Bytes) -> Bytes {
    let mut bytes = state.to_vec();
    bytes[9] ^= 1;
    bytes.into()
}

// A seeded fault: a row that can't be read counts as absent.
#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_is_refused_and_never_run_or_overwritten() {
    type Change = fn(&mut Write);
    let damages: [Change; 3] = [
        |write| write.state = damaged(&write.state),
        |write| write.kind = Kind::Other(42),
        |write| {
            let mut bytes = write.state.to_vec();
            bytes[0] = 200;
            write.state = bytes.into();
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let [(here, one), (_, other)] = two().await;
        let effects = Effects::default();
        assert_eq!(effects.server(&one, OnInterrupted::Rerun).post("k", "a").await.text(), "effect 1");
        overwrite(&here, id("k"), damage).await;
        let before = row(&here, id("k"));
        let refused = effects.server(&other, OnInterrupted::Rerun).post("k", "a").await;
        refused.assert_refusal(503, "store-unavailable", false, None);
        assert_eq!((row(&here, id("k")), effects.count()), (before, 1), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_row_of_a_dead_process_is_listed_and_settled_by_its_columns() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let run = effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    here.cut();
    let damaging = here.another_process();
    overwrite(&damaging, id("k"), |write| write.state = damaged(&write.state)).await;
    tokio::time::sleep(DEATH).await;
    let operator = IdempotencyLayer::new(other.clone());
    let listed = operator.interrupted(9).await.unwrap().remove(0);
    assert_eq!(listed.derived_key("charge"), None, "none is made up");
    let told = answer("told");
    operator.resolve(listed.id, listed.fence, told).await.map(|_| ()).unwrap();
    assert!(operator.interrupted(9).await.unwrap().is_empty());
    // The record no longer shows the request.
    let refused = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((refused.problem().as_str(), effects.count()), ("not-verifiable", 1));
    run.abort();
}

// A seeded fault: the process whose run it was still replays its copy.
#[tokio::test(start_paused = true)]
async fn a_damaged_outcome_that_its_own_process_settles_as_released_runs_again() {
    let [(here, one), _] = two().await;
    let effects = Effects::default();
    let server = effects.server(&one, OnInterrupted::Refuse);
    assert_eq!(server.post("k", "a").await.text(), "effect 1");
    overwrite(&here, id("k"), |write| write.state = damaged(&write.state)).await;
    let operator = IdempotencyLayer::new(one);
    let seen = operator.operations().inspect(id("k")).await.unwrap().unwrap();
    assert_eq!(operator.resolve(seen.id, seen.fence, Action::Release).await.unwrap(), Applied::Done);
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
}

// Seeded faults: such a row is not listed; it is listed after all others.
#[tokio::test(start_paused = true)]
async fn a_damaged_outcome_is_listed_once_it_was_met_and_settled_by_its_columns() {
    for forgets in [true, false] {
        let [(here, one), (_, other)] = two().await;
        let effects = Effects::default();
        let unknown =
            Lab::new(IdempotencyLayer::new(one.clone()), |_| async { (tower_idempotency::Unsure, "perhaps") });
        assert_eq!(unknown.post("before", "a").await.text(), "perhaps");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(unknown.post("after", "a").await.text(), "perhaps");
        overwrite(&here, id("k"), |write| write.state = damaged(&write.state)).await;
        let operator = IdempotencyLayer::new(other.clone());
        let listed = async || -> Vec<RecordId> {
            let (mut after, mut ids) = (None, Vec::new());
            loop {
                let page = other.list(List::Interrupted, after, 1).await.unwrap();
                ids.extend(page.records.iter().map(|listed| listed.id));
                assert!(ids.len() <= 3, "one is listed again: {ids:?}");
                if page.next.is_none() {
                    return ids;
                }
                after = page.next;
            }
        };
        assert_eq!(listed().await, [id("before"), id("after")], "no request has met it");
        let server = effects.server(&other, OnInterrupted::Refuse);
        server.post("k", "a").await.assert_refusal(503, "store-unavailable", false, None);
        assert_eq!(operator.stats().corrupt, 1);
        assert_eq!(listed().await, [id("before"), id("k"), id("after")]);
        let run = operator.interrupted(9).await.unwrap().remove(1);
        let told = answer("told");
        let resolution = if forgets { Action::Release } else { told };
        assert_eq!(operator.resolve(run.id, run.fence, resolution).await.unwrap(), Applied::Done);
        assert_eq!(listed().await, [id("before"), id("after")]);
        // The record no longer shows the request.
        let expected = if forgets { "effect 2" } else { "not-verifiable" };
        let retry = server.post("k", "a").await;
        assert_eq!(if forgets { retry.text().to_owned() } else { retry.problem() }, expected);
    }
}

// A seeded fault: it is listed twice, as the outcome that was met and as what it is.
#[tokio::test(start_paused = true)]
async fn a_damaged_outcome_that_was_met_and_is_interrupted_by_now_is_listed_once() {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    overwrite(&here, id("k"), |write| write.state = damaged(&write.state)).await;
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.status, 503);
    overwrite(&here, id("k"), |write| write.kind = Kind::Interrupted).await;
    let listed = interrupted(&other, 9).await;
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), [id("k")]);
}

// A seeded fault: a row that is too short for a checksum is taken for damaged, and an operator may overwrite it.
#[tokio::test(start_paused = true)]
async fn what_a_later_release_has_written_is_not_listed_however_short_it_is() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let run = effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    here.cut();
    overwrite(&here.another_process(), id("k"), |write| write.state = vec![200].into()).await;
    tokio::time::sleep(LEASE).await;
    assert!(IdempotencyLayer::new(other).interrupted(9).await.unwrap().is_empty());
    run.abort();
}

// A seeded fault: a locked row is not waited for.
#[tokio::test(start_paused = true)]
async fn a_row_that_an_application_has_locked_is_waited_for() {
    let [(here, one), _] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = IdempotencyLayer::new(one);
    let run = effects.behind(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let lock = here.database().lock("", id("k"));
    gate.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!run.is_finished());
    lock.release();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert_eq!((row(&here, id("k")).unwrap().kind, layer.stats().unsaved), (Kind::Completed, 0));
}
