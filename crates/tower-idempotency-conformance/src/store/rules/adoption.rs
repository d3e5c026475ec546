//! The records of another store.

use std::time::Duration;

use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Cause, ClaimPolicy, Fence, Owner, Record, Reply, State};
use tower_idempotency::store::{Store, StoreError};
use tower_idempotency::{Fingerprint, RecordId};

use crate::fresh::fresh_id;
use crate::store::rule::Rule;
use crate::store::sample::{HOUR, Hold, claim, complete, free, wish};
use crate::store::subject::StoreSubject;

const MINUTE: Duration = Duration::from_secs(60);

/// A record of another store is taken with its fence and its times, is never written over another one, and goes on as
/// a record of this store. One that has expired is absent.
pub(crate) async fn a_record_of_another_store_is_taken_as_it_is<St: Store>(subject: &StoreSubject<St>) {
    let advice =
        "write the fence, the times and the state that the record says, and nothing if there is a record of its id";
    let rule = Rule::new(subject, "a_record_of_another_store_is_taken_as_it_is", advice);
    let now = rule.now().await;
    let interrupted = State::Interrupted { policy: ClaimPolicy::Ask, run: Fence(6), cause: Cause::Answered(502) };
    let records: Vec<(RecordId, Record)> = [
        State::Completed { outcome: "an outcome".into() },
        State::Completed { outcome: vec![7; 5_000].into() },
        State::Consumed { status: 418 },
        interrupted.clone(),
        interrupted,
    ]
    .into_iter()
    .map(|state| (fresh_id(), record(state, now)))
    .collect();
    let applied = match subject.store.adopt(records.clone()).await {
        // A database need not be able to do it.
        Err(StoreError::Unavailable { .. }) if !subject.store.is_exclusive() => return,
        applied => applied.unwrap_or_else(|error| rule.fail(format_args!("to adopt failed: {error:?}"))),
    };
    rule.check(applied.iter().all(|one| one.reply == Reply::Taken), || {
        format!("new records were refused: {applied:?}")
    });
    let others: Vec<_> = records.iter().map(|(id, _)| (*id, record(State::Consumed { status: 599 }, now))).collect();
    for again in [records.clone(), others] {
        for (id, record) in &records {
            for store in [&subject.store, rule.other()] {
                let found = rule.load_by(store, *id).await;
                rule.check(found.as_ref() == Some(record), || format!("{record:?} was adopted, and is {found:?}"));
            }
        }
        let applied = subject.store.adopt(again).await;
        let applied = applied.unwrap_or_else(|error| rule.fail(format_args!("to adopt again failed: {error:?}")));
        for ((_, record), applied) in records.iter().zip(applied) {
            let is_so = applied.reply == Reply::Refused && applied.record.as_ref() == Some(record);
            rule.check(is_so, || format!("over {record:?}, another one was answered {applied:?}"));
        }
    }
    let [.., late, freed] = [0, 1, 2, 3, 4].map(|at| records[at].0);
    let listed = rule.listed(&[late, freed], 1).await;
    let is_listed = listed.len() == 2 && listed.iter().all(|run| run.fence == Fence(7) && run.began == before(now, 2));
    rule.check(is_listed, || format!("interrupted operations were adopted, and these are listed: {listed:?}"));
    rule.made(late, &complete(Hold { id: late, fence: Fence(6), attempt: 3 }, "late")).await;
    rule.taken(freed, &free(Fence(7))).await;
    let fence = rule.claimed(freed).await.fence;
    rule.check(Fence(7) < fence, || format!("fence {fence} was given after an adopted one of 7"));
    let gone = (fresh_id(), Record { expires: Some(before(now, 1)), ..record(State::Consumed { status: 418 }, now) });
    let run = State::Running { policy: ClaimPolicy::Refuse, interrupted_retention: HOUR };
    let running = (fresh_id(), Record { expires: None, ..record(run, now) });
    for (id, record) in [gone, running] {
        rule.read(|| subject.store.adopt(vec![(id, record.clone())])).await;
        let found = rule.load(id).await;
        rule.check(found.is_none(), || format!("{record:?} was adopted as {found:?}"));
        rule.made(id, &claim()).await;
    }
}

fn before(now: Timestamp, minutes: u32) -> Timestamp {
    Timestamp::from_millis(now.as_millis() - u64::try_from((MINUTE * minutes).as_millis()).unwrap_or(0))
}

fn record(state: State, now: Timestamp) -> Record {
    Record {
        fence: Fence(7),
        began: before(now, 2),
        since: before(now, 1),
        expires: Some(now.plus(HOUR)),
        fingerprint: Fingerprint::of(b"a request"),
        attempt: 3,
        origin: wish().operation.origin,
        state,
        owner: Owner::None,
    }
}
