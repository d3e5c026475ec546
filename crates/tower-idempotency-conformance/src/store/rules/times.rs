//! The times of a record, by the store's clock.

use std::time::Duration;

use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Fence, List, Record, State, Transition};
use tower_idempotency::store::Store;

use crate::fresh::fresh_id;
use crate::store::rule::Rule;
use crate::store::sample::{
    Ending, HOUR, SHORT, claim, complete, consume, forget, forget_answer, hold, inquire, interrupt, reclaim, settle,
    shortly,
};
use crate::store::subject::StoreSubject;

const MOMENT: Duration = Duration::from_millis(1);

/// A record past its expiry counts as absent, swept or not: it is neither loaded nor recalled nor listed, and its key
/// is claimed as a new one.
pub(crate) async fn a_record_past_its_expiry_is_absent<St: Store>(subject: &StoreSubject<St>) {
    let advice = "compare the expiry with the store's time wherever a record is read, also in a cache, and in the step that \
                  claims its key";
    let rule = Rule::new(subject, "a_record_past_its_expiry_is_absent", advice);
    let mut runs = Vec::new();
    for _ in 0..2 {
        runs.extend(kept_for_a_second(&rule).await);
    }
    if subject.clock.is_some() {
        rule.pass(SHORT - MOMENT);
        for (id, _) in &runs {
            let loaded = rule.load(*id).await;
            rule.check(loaded.is_some(), || "a record was absent a millisecond before its expiry".to_owned());
        }
        rule.pass(MOMENT);
        for (id, _) in &runs {
            let loaded = rule.load(*id).await;
            rule.check(loaded.is_none(), || format!("at its expiry a record was loaded: {loaded:?}"));
        }
    }
    for (at, (id, run)) in runs.iter().enumerate() {
        rule.outlive(*id, SHORT).await;
        let recalled = subject.store.recall(*id);
        rule.check(recalled.is_none(), || format!("a record past its expiry was recalled: {recalled:?}"));
        let listed = rule.listed(&[*id], 1_000).await;
        rule.check(listed.is_empty(), || format!("an operation past its expiry is listed: {listed:?}"));
        if at == runs.len() / 2 {
            rule.swept(100).await;
        }
        rule.tick().await;
        let next = rule.claimed(*id).await;
        let is_new = next.attempt == 1 && run.began < next.began && run.fence < next.fence;
        rule.check(is_new, || format!("a claim over an expired record made {next:?}; the last run was {run:?}"));
    }
}

/// Leaves a record of each kind that expires in a second, and gives the runs that made them.
async fn kept_for_a_second<St: Store>(rule: &Rule<'_, St>) -> Vec<(RecordId, Record)> {
    let endings: [Ending; 4] = [
        |hold| shortly(complete(hold, "its outcome")),
        |hold| shortly(consume(hold, 201)),
        |hold| interrupt(hold.fence),
        |hold| shortly(settle(hold.fence, "settled")),
    ];
    let mut runs = Vec::new();
    for (which, ending) in endings.into_iter().enumerate() {
        let id = fresh_id();
        // An interrupted operation that is to be settled has to be there until then.
        let run = rule.made(id, &if which == 2 { shortly(claim()) } else { claim() }).await;
        if which == 3 {
            rule.made(id, &interrupt(run.fence)).await;
        }
        rule.made(id, &ending(hold(id, &run))).await;
        runs.push((id, run));
    }
    runs
}

fn expires<St: Store>(rule: &Rule<'_, St>, record: &Record) -> Timestamp {
    record.expires.unwrap_or_else(|| rule.fail(format_args!("it never expires: {record:?}")))
}

/// An outcome is kept for its retention from when it was recorded, and an interrupted operation from when it was
/// interrupted, however long the run took.
pub(crate) async fn retention_counts_from_the_end_of_the_run<St: Store>(subject: &StoreSubject<St>) {
    let advice = "stamp `since` and `expires` with the store's time of the step that ends the run: a run may take longer than \
                  its outcome is kept";
    let rule = Rule::new(subject, "retention_counts_from_the_end_of_the_run", advice);
    let endings: [Ending; 4] = [
        |hold| complete(hold, "its outcome"),
        |hold| consume(hold, 201),
        |hold| interrupt(hold.fence),
        |hold| settle(hold.fence, "settled"),
    ];
    for (which, ending) in endings.into_iter().enumerate() {
        let id = fresh_id();
        let run = rule.claimed(id).await;
        rule.check(run.expires.is_none(), || format!("a run that goes on expires: {run:?}"));
        if which == 3 {
            rule.made(id, &interrupt(run.fence)).await;
        } else {
            rule.pass(HOUR * 2);
        }
        rule.tick().await;
        let before = rule.now().await;
        let ended = rule.made(id, &ending(hold(id, &run))).await;
        let after = rule.now().await;
        let expires = expires(&rule, &ended);
        rule.check(before <= ended.since && ended.since <= after, || {
            format!("it ended between {before:?} and {after:?}, and its state is since {:?}", ended.since)
        });
        rule.check(before.plus(HOUR) <= expires && expires <= after.plus(HOUR), || {
            format!("it ended between {before:?} and {after:?}, is to be kept for an hour, and expires at {expires:?}")
        });
    }
}

/// `began` is when the first attempt began, or a little earlier, and `since` when the operation came to its state. A
/// question changes neither.
pub(crate) async fn began_is_of_the_first_attempt_and_since_of_the_state<St: Store>(subject: &StoreSubject<St>) {
    let advice =
        "keep `began` for as long as there is a record, and stamp `since` at each change of state but a question";
    let rule = Rule::new(subject, "began_is_of_the_first_attempt_and_since_of_the_state", advice);
    let id = fresh_id();
    let (before, earlier) = (rule.now().await, rule.claimed(fresh_id()).await);
    let run = rule.claimed(id).await;
    // It began by the earliest of several clocks, if there are several.
    let is_so = earlier.began <= run.began && run.began <= run.since && before <= run.since;
    rule.check(is_so, || format!("at {before:?}, after {earlier:?}, a claim made {run:?}"));
    let mut last = run.clone();
    let steps: [fn(Fence) -> Transition; 6] =
        [interrupt, inquire, reclaim, interrupt, inquire, |fence| settle(fence, "settled")];
    for step in steps {
        rule.tick().await;
        let is_question = matches!(step(last.fence), Transition::Inquire { .. });
        let record = rule.made(id, &step(last.fence)).await;
        rule.check(record.began == run.began, || format!("began was {:?}, and is {:?}", run.began, record.began));
        let is_so = if is_question { record.since == last.since } else { last.since < record.since };
        rule.check(is_so, || {
            format!("since was {:?}; then {:?} is since {:?}", last.since, record.state, record.since)
        });
        last = record;
    }
}

/// An operation that is asked about is kept for as long as the question may take, and never for less than before.
pub(crate) async fn a_record_outlives_the_question_about_it<St: Store>(subject: &StoreSubject<St>) {
    let advice = "let a question put the expiry off to the end of its bound, and never bring it forward: a verdict that finds \
                  no record lets the operation run again";
    let rule = Rule::new(subject, "a_record_outlives_the_question_about_it", advice);
    let id = fresh_id();
    let run = rule.made(id, &shortly(claim())).await;
    rule.made(id, &interrupt(run.fence)).await;
    let asked = rule.apply(id, &inquire(run.fence)).await.record;
    // On a slow machine it had expired before it was asked about.
    if let Some(asked) = asked.filter(|record| record.fence != run.fence) {
        let until = expires(&rule, &asked);
        rule.check(asked.since.plus(HOUR) <= until, || format!("an hour's question about {asked:?}"));
        rule.pass(SHORT * 2);
        rule.tick().await;
        let settled = rule.made(id, &settle(asked.fence, "settled")).await;
        let is_so = matches!(settled.state, State::Completed { .. }) && settled.began == run.began;
        rule.check(is_so, || format!("the verdict about {asked:?} made {settled:?}"));
    }
    let id = fresh_id();
    let kept = rule.interrupted(id).await;
    let asked = rule.made(id, &Transition::Inquire { fence: kept.fence, bound: SHORT }).await;
    rule.check(kept.expires <= asked.expires, || {
        format!("a short question brought the expiry forward from {:?} to {:?}", kept.expires, asked.expires)
    });
}

/// An answer that is forgotten leaves the fact, under the fence of its run and for as long as it would be kept. A late
/// copy of the run's end is taken, and changes nothing: its outcome is neither there again nor disputed.
pub(crate) async fn an_answer_that_is_forgotten_leaves_the_fact<St: Store>(subject: &StoreSubject<St>) {
    let advice = "write the whole draft over the completed record: the state is another one, and the fence, the times and the \
                  expiry stay";
    let rule = Rule::new(subject, "an_answer_that_is_forgotten_leaves_the_fact", advice);
    let id = fresh_id();
    let run = rule.claimed(id).await;
    // A store may keep a long outcome apart from its record.
    let end = complete(hold(id, &run), vec![b'x'; 9_000]);
    let completed = rule.made(id, &end).await;
    rule.tick().await;
    let forgotten = rule.made(id, &forget_answer(completed.fence)).await;
    let expires = forgotten.expires;
    let is_kept = completed.expires <= expires;
    let fact = Record { state: State::Consumed { status: 418 }, expires, ..completed };
    rule.check(is_kept && forgotten == fact, || format!("to forget the answer made {forgotten:?}, and not {fact:?}"));
    let met = rule.refused(id, &claim()).await;
    rule.check(met.as_ref() == Some(&fact), || format!("a claim was answered {met:?}, and not {fact:?}"));
    let late = rule.made(id, &end).await;
    rule.check(late == fact, || format!("a late copy of the run's end was answered {late:?}"));
    rule.refused(id, &forget_answer(fact.fence)).await;
    for (by, found) in [("the store", rule.load(id).await), ("another process", rule.load_by(rule.other(), id).await)] {
        rule.check(found.as_ref() == Some(&fact), || format!("{by} has {found:?}, and not {fact:?}"));
    }
    let is_disputed = rule.all(List::Disputed, 1_000).await.iter().any(|listed| listed.id == id);
    rule.check(!is_disputed, || "a late copy of the run's end left a disputed outcome".to_owned());
    let freed = rule.taken(id, &forget(fact.fence)).await;
    rule.check(freed.is_none(), || format!("it was forgotten, and {freed:?} is left"));
}
