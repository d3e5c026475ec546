//! The owner of an operation: this process, another, or none.

use std::time::Duration;

use tower_idempotency::internals::{Claim, Owner, State, Transition};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::Store;

use crate::fresh::fresh_id;
use crate::store::rule::Rule;
use crate::store::sample::{
    Ending, HOUR, claim, complete, free, hold, inquire, interrupt, name_of, reclaim, settle, wish,
};
use crate::store::subject::StoreSubject;

/// A process's own run is its own, however long it takes: it is not interrupted, listed or swept, and ends like others.
pub(crate) async fn a_process_has_its_own_runs_however_long_they_take<St: Store>(subject: &StoreSubject<St>) {
    let advice = "present a run as interrupted only if its process is gone, or to other processes: this one knows by its slot \
                  whether it goes on";
    let rule = Rule::new(subject, "a_process_has_its_own_runs_however_long_they_take", advice);
    let endings: [Ending; 3] =
        [|hold| complete(hold, "its outcome"), |hold| interrupt(hold.fence), |hold| Transition::Release(hold.fence)];
    for ending in endings {
        let id = fresh_id();
        let bound = Duration::from_millis(1);
        let run = rule.made(id, &Transition::Claim(Claim { bound, ..wish() })).await;
        rule.pass(HOUR * 24);
        rule.tick().await;
        rule.swept(100).await;
        let loaded = rule.load(id).await;
        let is_own = loaded.as_ref() == Some(&run) && run.owner == Owner::Here;
        rule.check(is_own, || format!("a run past its bound: {run:?} has become {loaded:?}"));
        let listed = rule.listed(&[id], 1_000).await;
        rule.check(listed.is_empty(), || format!("this process's own run is listed: {listed:?}"));
        for other in [reclaim(run.fence), inquire(run.fence), settle(run.fence, "settled"), free(run.fence)] {
            let found = rule.refused(id, &other).await;
            rule.check(found.as_ref() == Some(&run), || format!("to {} a run made {found:?}", name_of(&other)));
        }
        let ending = ending(hold(id, &run));
        let ended = rule.taken(id, &ending).await;
        let is_nobodys = ended.as_ref().is_none_or(|record| record.owner == Owner::None);
        rule.check(is_nobodys, || format!("to {} a run made {ended:?}", name_of(&ending)));
    }
}

/// The run of another process that is alive is seen as its own, and only that process ends it. An operation that it
/// asks about is taken over by no other process, and settled by an operator at any process.
pub(crate) async fn nobody_takes_the_run_of_a_living_process<St: Store>(subject: &StoreSubject<St>) {
    let advice = "say in `owner` that another living process has the operation, and let `next` decide over that";
    let rule = Rule::new(subject, "nobody_takes_the_run_of_a_living_process", advice);
    let Some(another) = &subject.another_process else { return rule.leave_out("`another_process`") };
    let id = fresh_id();
    let run = rule.claimed(id).await;
    let seen = rule.load_by(another, id).await;
    let is_so = seen
        .as_ref()
        .is_some_and(|seen| (seen.fence, seen.owner, &seen.state) == (run.fence, Owner::Elsewhere, &run.state));
    rule.check(is_so, || format!("another process sees {run:?} as {seen:?}"));
    let fence = run.fence;
    for take in [claim(), interrupt(fence), reclaim(fence), inquire(fence), settle(fence, "no"), free(fence)] {
        let answered = rule.refused_by(another, id, &take).await;
        rule.check(answered == seen, || format!("to {} another's run was answered {answered:?}", name_of(&take)));
    }
    let found = rule.load(id).await;
    rule.check(found.as_ref() == Some(&run), || format!("{run:?} has become {found:?}"));
    rule.made(id, &complete(hold(id, &run), "its outcome")).await;

    let id = fresh_id();
    let asked = rule.asked(id).await;
    let seen = rule.load_by(another, id).await;
    let is_so = seen.as_ref().is_some_and(|seen| (seen.fence, seen.owner) == (asked.fence, Owner::Elsewhere));
    rule.check(is_so, || format!("another process sees {asked:?} as {seen:?}"));
    for take in [reclaim(asked.fence), inquire(asked.fence)] {
        rule.refused_by(another, id, &take).await;
    }
    let settled = rule.made_by(another, id, &settle(asked.fence, "what the operator found")).await;
    let late = rule.refused(id, &settle(asked.fence, "too late")).await;
    rule.check(late.as_ref() == Some(&settled), || format!("{settled:?} is there, and {late:?} was answered"));

    let id = fresh_id();
    let asked = rule.asked(id).await;
    let over = rule.made(id, &Transition::Inquire { fence: asked.fence, bound: Duration::ZERO }).await;
    let seen = rule.load_by(another, id).await;
    let is_so = seen.as_ref().is_some_and(|seen| (seen.fence, seen.owner) == (over.fence, Owner::None));
    rule.check(is_so, || format!("another process sees the question that is over, {over:?}, as {seen:?}"));
    rule.made_by(another, id, &inquire(over.fence)).await;
}

/// The runs of another process are interrupted when it is gone, under their own fences: they are listed, and taken
/// over, and what they produce is recorded until then.
pub(crate) async fn the_runs_of_a_process_that_is_gone_are_interrupted<St: Store>(subject: &StoreSubject<St>) {
    let advice = "present a run as interrupted once its process's lease is over or given back, and let its own fence complete it \
                  until another process takes it";
    let rule = Rule::new(subject, "the_runs_of_a_process_that_is_gone_are_interrupted", advice);
    let Some(another) = &subject.another_process else { return rule.leave_out("`another_process`") };
    let ids = [0; 3].map(|_| fresh_id());
    let [taken, late, asked] = ids;
    let mut runs = Vec::new();
    for id in ids {
        runs.push(rule.made_by(another, id, &claim()).await);
    }
    let cut = rule.made_by(another, asked, &interrupt(runs[2].fence)).await;
    runs[2] = rule.made_by(another, asked, &inquire(cut.fence)).await;
    if let Err(error) = another.close().await {
        rule.fail(format_args!("to close failed: {error:?}"));
    }
    for (id, run) in ids.iter().zip(&runs) {
        let seen = rule
            .load_until(&subject.store, *id, "the run of a process that is gone is interrupted", |record| {
                record.is_some_and(|record| record.is_interrupted() && record.owner == Owner::None)
            })
            .await;
        let is_so = seen.as_ref().is_some_and(|seen| {
            let run_of = |record: &tower_idempotency::internals::Record| match record.state {
                State::Interrupted { run, .. } => run,
                _ => record.fence,
            };
            (seen.fence, run_of(seen), seen.began) == (run.fence, run_of(run), run.began)
        });
        rule.check(is_so, || format!("{run:?} of a process that is gone is seen as {seen:?}"));
        let listed = rule.listed(&[*id], 1_000).await;
        let should = seen.and_then(|seen| InterruptedRun::of(*id, &seen));
        rule.check(listed.as_slice() == should.as_slice(), || format!("{should:?} is listed as {listed:?}"));
    }
    let again = rule.made(taken, &reclaim(runs[0].fence)).await;
    rule.check(again.attempt == 2 && runs[0].fence < again.fence, || format!("{again:?} took over {:?}", runs[0]));
    rule.refused(taken, &complete(hold(taken, &runs[0]), "too late")).await;
    let made = rule.made(late, &complete(hold(late, &runs[1]), "late")).await;
    rule.check(matches!(made.state, State::Completed { .. }), || format!("a late outcome made {made:?}"));
    rule.made(asked, &inquire(runs[2].fence)).await;
}

/// Each process loads what the other was answered, and can go on from it.
pub(crate) async fn processes_see_each_others_steps<St: Store>(subject: &StoreSubject<St>) {
    let advice = "remember of a record only what can't change any more, or ask whether it has changed";
    let rule = Rule::new(subject, "processes_see_each_others_steps", advice);
    let Some(another) = &subject.another_process else { return rule.leave_out("`another_process`") };
    let id = fresh_id();
    let mut last = None;
    for round in 0..12 {
        let (store, other) = if round % 2 == 0 { (&*subject.store, another) } else { (another, &*subject.store) };
        let run = rule.made_by(store, id, &claim()).await;
        rule.check(last < Some(run.fence), || format!("fence {} was given after {last:?}", run.fence));
        let seen = rule.load_by(other, id).await.map(|record| (record.fence, record.owner));
        rule.check(seen == Some((run.fence, Owner::Elsewhere)), || format!("{run:?} is seen as {seen:?}"));
        let cut = rule.made_by(store, id, &interrupt(run.fence)).await;
        let seen = rule.load_by(other, id).await;
        rule.check(seen.as_ref() == Some(&cut), || format!("{cut:?} is seen as {seen:?}"));
        let again = rule.made_by(other, id, &reclaim(cut.fence)).await;
        let seen = rule.load_by(store, id).await.map(|record| (record.fence, record.owner));
        rule.check(seen == Some((again.fence, Owner::Elsewhere)), || format!("{again:?} is seen as {seen:?}"));
        rule.taken_by(other, id, &Transition::Release(again.fence)).await;
        last = Some(again.fence);
        let seen = rule.load_by(store, id).await;
        rule.check(seen.is_none(), || format!("it was released, and is seen as {seen:?}"));
    }
    let run = rule.made_by(another, id, &claim()).await;
    let done = rule.made_by(another, id, &complete(hold(id, &run), "its outcome")).await;
    let seen = rule.load(id).await;
    rule.check(seen.as_ref() == Some(&done), || format!("{done:?} is seen as {seen:?}"));
}
