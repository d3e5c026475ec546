//! Closing the store, and opening it again.

use futures_util::future::join_all;
use tower_idempotency::RecordId;
use tower_idempotency::internals::{Claim, List, Owner, Record, Transition};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::{Health, Store, StoreError};

use crate::fresh::{fresh_id, fresh_ids};
use crate::store::rule::{Rule, run_of};
use crate::store::sample::{
    Ending, answer, claim, complete, consume, free, hold, inquire, interrupt, name_of, reclaim, settle, wish,
};
use crate::store::subject::StoreSubject;

/// A closed store refuses claims, and does nothing for them. What was sent before it was closed is done.
pub(crate) async fn a_closed_store_takes_no_claim_and_loses_no_ending<St: Store>(subject: &StoreSubject<St>) {
    let advice = "finish what was sent before the store is closed, and answer `Unavailable` to every claim after it";
    let rule = Rule::new(subject, "a_closed_store_takes_no_claim_and_loses_no_ending", advice);
    let store = &subject.store;
    let endings: [Ending; 3] =
        [|hold| complete(hold, "its outcome"), |hold| consume(hold, 201), |hold| complete(hold, vec![7; 9_000])];
    let ids = fresh_ids(30);
    let runs = join_all(ids.iter().map(|id| rule.claimed(*id))).await;
    let sent: Vec<Transition> = ids
        .iter()
        .zip(&runs)
        .enumerate()
        .map(|(at, (id, run))| {
            let ending = endings[at % endings.len()](hold(*id, run));
            drop(store.apply(*id, ending.clone()));
            ending
        })
        .collect();
    if let Err(error) = store.close().await {
        rule.fail(format_args!("to close failed: {error:?}"));
    }
    if store.health() != Health::Closed {
        eprintln!("conformance: the store needs no closing");
        return;
    }
    let refused = fresh_ids(4);
    for (at, id) in refused.iter().enumerate() {
        let by_slot = Claim { may_repeat: at % 2 == 0, ..wish() };
        let answer = store.apply(*id, Transition::Claim(by_slot)).await;
        let is_refused = matches!(answer, Err(StoreError::Unavailable { .. }));
        rule.check(is_refused, || format!("a closed store answered a claim with {answer:?}"));
    }
    if let Err(error) = store.close().await {
        rule.fail(format_args!("to close once more failed: {error:?}"));
    }
    let Some(reopened) = rule.reopened().await else { return };
    for ((id, run), ending) in ids.iter().zip(&runs).zip(&sent) {
        let what = format!("to {} was sent before the store was closed", name_of(ending));
        let done =
            rule.load_until(&reopened, *id, &what, |record| record.is_some_and(|record| record.state.is_done())).await;
        let fence = done.map(|done| done.fence);
        rule.check(fence == Some(run.fence), || format!("{what} under {}, and is done under {fence:?}", run.fence));
    }
    for id in refused {
        let found = rule.load_by(&reopened, id).await;
        rule.check(found.is_none(), || format!("a claim that was refused has left {found:?}"));
        rule.made_by(&reopened, id, &claim()).await;
    }
}

/// Whatever was answered is there when the store is opened again, in every field: what is done, and what is
/// interrupted.
pub(crate) async fn what_was_answered_survives_a_reopening<St: Store>(subject: &StoreSubject<St>) {
    let advice = "answer only what is written to last, and read back all of it";
    let rule = Rule::new(subject, "what_was_answered_survives_a_reopening", advice);
    if subject.reopen.is_none() {
        return rule.leave_out("`reopened_by`");
    }
    let lives: [&[Ending]; 8] = [
        &[|hold| complete(hold, "its outcome")],
        &[|hold| complete(hold, vec![7; 20_000])],
        &[|hold| consume(hold, 201)],
        &[|hold| interrupt(hold.fence)],
        &[|hold| answer(hold.fence, 504)],
        &[|hold| interrupt(hold.fence), |hold| settle(hold.fence, "settled")],
        &[|hold| Transition::Release(hold.fence)],
        &[|hold| interrupt(hold.fence), |hold| free(hold.fence)],
    ];
    let mut stood: Vec<(RecordId, Option<Record>)> = Vec::new();
    for life in lives {
        let id = fresh_id();
        let run = rule.claimed(id).await;
        let mut last = None;
        for step in life {
            last = rule.taken(id, &step(hold(id, &run))).await;
        }
        stood.push((id, last));
    }
    let Some(reopened) = rule.reopened().await else { return };
    for (id, before) in stood {
        let after = rule.load_by(&reopened, id).await;
        rule.check(after == before, || format!("{before:?} was answered; opened again, the store has {after:?}"));
    }
}

/// The runs of the last opening are interrupted in the next one, under their own fences, also those that were asked
/// about: they are listed, completed late, taken over or settled.
pub(crate) async fn the_runs_of_an_earlier_opening_are_interrupted<St: Store>(subject: &StoreSubject<St>) {
    let advice = "present what the last opening left running as interrupted, under its own fence, and list it";
    let rule = Rule::new(subject, "the_runs_of_an_earlier_opening_are_interrupted", advice);
    let ids = [0; 5].map(|_| fresh_id());
    let mut runs = [const { None }; 5];
    for (id, run) in ids.iter().zip(&mut runs) {
        *run = Some(rule.claimed(*id).await);
    }
    let [Some(late), Some(taken), Some(settled), Some(again), Some(asked)] = runs else { return };
    let cut = rule.made(ids[3], &interrupt(again.fence)).await;
    let again = rule.made(ids[3], &reclaim(cut.fence)).await;
    let cut = rule.made(ids[4], &interrupt(asked.fence)).await;
    let asked = rule.made(ids[4], &inquire(cut.fence)).await;
    let Some(store) = rule.reopened().await else { return };
    for (id, run) in ids.iter().zip([&late, &taken, &settled, &again, &asked]) {
        let seen = rule
            .load_until(&store, *id, "a run of the last opening is interrupted", |record| {
                record.is_some_and(|record| record.is_interrupted() && record.owner == Owner::None)
            })
            .await;
        let is_so = seen.as_ref().is_some_and(|seen| {
            (seen.fence, seen.attempt, seen.began, seen.fingerprint)
                == (run.fence, run.attempt, run.began, run.fingerprint)
        });
        rule.check(is_so, || format!("{run:?} of the last opening is seen as {seen:?}"));
        let listed = rule.read(|| store.list(List::Interrupted, None, 10_000)).await.records;
        let listed: Vec<_> = listed.iter().filter(|run| run.id == *id).filter_map(run_of).collect();
        let should = seen.and_then(|seen| InterruptedRun::of(*id, &seen));
        rule.check(listed.as_slice() == should.as_slice(), || format!("{should:?} is listed as {listed:?}"));
    }
    rule.made_by(&store, ids[0], &complete(hold(ids[0], &late), "late")).await;
    let next = rule.made_by(&store, ids[1], &reclaim(taken.fence)).await;
    rule.check(next.attempt == 2 && taken.fence < next.fence, || format!("{next:?} took over {taken:?}"));
    rule.refused_by(&store, ids[1], &complete(hold(ids[1], &taken), "too late")).await;
    rule.made_by(&store, ids[2], &settle(settled.fence, "settled")).await;
    let third = rule.made_by(&store, ids[3], &reclaim(again.fence)).await;
    rule.check(third.attempt == 3, || format!("{third:?} took over {again:?}"));
    rule.made_by(&store, ids[4], &inquire(asked.fence)).await;
}
