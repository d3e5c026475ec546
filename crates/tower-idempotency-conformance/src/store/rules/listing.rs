//! The lists, and what operators select of them.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Cause, Fence, List, ListedRecord, Owner, Transition};
use tower_idempotency::operations::{Filter, Operations, StateKind};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::Store;

use crate::fresh::{fresh_id, fresh_ids};
use crate::store::rule::Rule;
use crate::store::sample::{
    Ending, HOUR, Hold, SHORT, answer, claim, complete, consume, described, forget, free, hold, inquire, interrupt,
    reclaim, settle, shortly,
};
use crate::store::subject::StoreSubject;

type Step = fn(Hold, Fence) -> Transition;

/// The cases: how a run ends, what happens to the operation then, and whether it is listed.
const LIVES: [(&str, Ending, Option<Step>, bool); 14] = [
    ("completed", |hold| complete(hold, "done"), None, false),
    ("consumed", |hold| consume(hold, 201), None, false),
    ("released", |hold| Transition::Release(hold.fence), None, false),
    ("interrupted", |hold| interrupt(hold.fence), None, true),
    ("answered that the effect is unknown", answered, None, true),
    ("asked about", |hold| interrupt(hold.fence), Some(|_, fence| inquire(fence)), true),
    ("answered, and asked about", answered, Some(|_, fence| inquire(fence)), true),
    ("taken over", |hold| interrupt(hold.fence), Some(|_, fence| reclaim(fence)), false),
    ("settled", answered, Some(|_, fence| settle(fence, "settled")), false),
    ("freed", |hold| interrupt(hold.fence), Some(|_, fence| free(fence)), false),
    ("forgotten", |hold| complete(hold, "done"), Some(|_, fence| forget(fence)), false),
    ("forgotten without an outcome", |hold| consume(hold, 201), Some(|_, fence| forget(fence)), false),
    ("completed late", answered, Some(|hold, _| complete(hold, "late")), false),
    ("released late", |hold| interrupt(hold.fence), Some(|_, fence| Transition::Release(fence)), false),
];

fn answered(hold: Hold) -> Transition {
    answer(hold.fence, 504)
}

/// Leaves an operation of each kind, and says whether it is to be listed.
async fn leave_all<St: Store>(rule: &Rule<'_, St>) -> Vec<(&'static str, RecordId, bool)> {
    let mut all = Vec::new();
    for (what, ending, step, is_listed) in LIVES {
        let id = fresh_id();
        let hold = hold(id, &rule.claimed(id).await);
        let ended = rule.taken(id, &ending(hold)).await;
        if let (Some(step), Some(ended)) = (step, ended) {
            rule.taken(id, &step(hold, ended.fence)).await;
        }
        all.push((what, id, is_listed));
    }
    let running = fresh_id();
    rule.claimed(running).await;
    all.push(("running, of this process", running, false));
    let again = fresh_id();
    let second = rule.taken_over(again).await;
    rule.made(again, &answered(hold(again, &second))).await;
    all.push(("interrupted twice", again, true));
    let gone = fresh_id();
    let run = rule.made(gone, &shortly(claim())).await;
    rule.made(gone, &interrupt(run.fence)).await;
    rule.outlive(gone, SHORT).await;
    all.push(("past its expiry", gone, false));
    all
}

/// Interrupted operations are listed as they are loaded, those that are asked about too, and nothing else is: what
/// runs, is done, settled, freed or past its expiry leaves the list.
pub(crate) async fn interrupted_operations_are_listed_until_they_are_settled<St: Store>(subject: &StoreSubject<St>) {
    let advice = "change the index of interrupted operations in the step that changes the record, and leave out what is past \
                  its expiry";
    let rule = Rule::new(subject, "interrupted_operations_are_listed_until_they_are_settled", advice);
    let all = leave_all(&rule).await;
    let ids: Vec<RecordId> = all.iter().map(|(_, id, _)| *id).collect();
    let listed = rule.listed(&ids, 1_000).await;
    for (what, id, is_listed) in all {
        let record = rule.load(id).await;
        let should = record.and_then(|record| InterruptedRun::of(id, &record)).filter(|_| is_listed);
        rule.check(should.is_some() == is_listed, || format!("an operation that is {what} is not interrupted"));
        let found: Vec<_> = listed.iter().filter(|run| run.id == id).cloned().collect();
        let is_so = found.as_slice() == should.as_slice();
        rule.check(is_so, || format!("an operation that is {what} is listed as {found:?}, not {should:?}"));
    }
}

/// Operations that were interrupted at the same moment, and others: in pages of any size each comes once, the oldest
/// first.
pub(crate) async fn the_list_is_paged_without_gaps_or_repeats<St: Store>(subject: &StoreSubject<St>) {
    let advice = "order by time and then by id, and begin each page strictly after the operation that is given; many operations \
                  may have the same time";
    let rule = Rule::new(subject, "the_list_is_paged_without_gaps_or_repeats", advice);
    let mut generations = Vec::new();
    for _ in 0..3 {
        rule.tick().await;
        let ids = fresh_ids(30);
        let runs = join_all(ids.iter().map(|id| rule.claimed(*id))).await;
        let cut = ids.iter().zip(&runs).map(|(id, run)| {
            let rule = &rule;
            async move { rule.made(*id, &interrupt(run.fence)).await }
        });
        join_all(cut).await;
        generations.push(ids);
    }
    let all: Vec<RecordId> = generations.concat();
    let whole = rule.listed(&all, 100_000).await;
    for limit in [1, 2, 7, 30, 90, 1_000] {
        let listed = rule.listed(&all, limit).await;
        for id in &all {
            let times = listed.iter().filter(|run| run.id == *id).count();
            rule.check(times == 1, || format!("in pages of {limit}, an operation is listed {times} times"));
        }
        rule.check(listed == whole, || format!("in pages of {limit}, the list has another order"));
    }
    let generation = |run: &InterruptedRun| generations.iter().position(|ids| ids.contains(&run.id));
    let is_in_order = whole.is_sorted_by_key(generation);
    rule.check(is_in_order, || "an operation is listed after one that began, and was interrupted, later".to_owned());
    let nothing = rule.page(List::Interrupted, None, 0).await;
    rule.check(nothing.records.is_empty(), || "a page of none has some".to_owned());
}

/// Operations in each state: a scan in pages of any size has each record that is loaded once, in the order of their
/// ids, and nothing that is free or past its expiry; and the runs of a living process are listed as running, with
/// one session, or none.
pub(crate) async fn a_scan_has_each_record_once_in_the_order_of_ids<St: Store>(subject: &StoreSubject<St>) {
    let advice = "begin each page strictly after the id that is given, and return where the next one begins for as long as there \
                  are records";
    let rule = Rule::new(subject, "a_scan_has_each_record_once_in_the_order_of_ids", advice);
    let all = leave_all(&rule).await;
    for limit in [1, 3, 1_000] {
        let scanned = rule.scanned(limit).await;
        let is_in_order = scanned.is_sorted_by_key(|record| record.id);
        rule.check(is_in_order, || format!("in pages of {limit}, the ids do not grow"));
        for (what, id, _) in &all {
            let found = scanned.iter().filter(|record| record.id == *id);
            let found: Vec<_> = found.map(|record| ListedRecord { session: None, ..record.clone() }).collect();
            let expected: Vec<_> = rule.load(*id).await.iter().map(|record| ListedRecord::of(*id, record)).collect();
            rule.check(found == expected, || {
                format!("in pages of {limit}, a scan has {found:?} of an operation that is {what}, not {expected:?}")
            });
        }
    }
    let running = rule.all(List::Running, 1_000).await;
    for limit in [1, 3, usize::MAX] {
        let paged = rule.all(List::Running, limit).await;
        rule.check(paged == running, || format!("in pages of {limit}, the runs are not those of one page"));
    }
    for (what, id, _) in &all {
        let is_listed = running.iter().any(|record| record.id == *id);
        let should = what.starts_with("running") || *what == "taken over";
        rule.check(is_listed == should, || format!("an operation that is {what} is listed as running: {is_listed}"));
    }
    let is_here = |run: &&ListedRecord| run.record.as_ref().is_ok_and(|record| record.owner == Owner::Here);
    let sessions: HashSet<_> = running.iter().filter(is_here).map(|run| run.session).collect();
    let is_one = sessions.len() == 1 && (!subject.store.is_exclusive() || sessions.contains(&None));
    rule.check(is_one, || format!("the runs of one process are listed with the sessions {sessions:?}"));
}

/// Operations of two scopes and labels, which ended in different ways: each filter of operators selects those whose
/// records have what it says, on pages of any size.
pub(crate) async fn filters_select_by_what_records_say<St: Store>(subject: &StoreSubject<St>) {
    let advice = "list the origin, the state and the times of each record as they were written";
    let rule = Rule::new(subject, "filters_select_by_what_records_say", advice);
    let cases: [(&str, u8, Ending); 4] = [
        ("charge 1", 1, |hold| complete(hold, "done")),
        ("charge 2", 2, |hold| answer(hold.fence, 504)),
        ("refund 1", 1, |hold| interrupt(hold.fence)),
        ("refund 2", 2, |hold| consume(hold, 201)),
    ];
    let mut ids = Vec::new();
    for (label, scope, ending) in cases {
        let id = fresh_id();
        let of = |transition| described(transition, label, [scope; 32]);
        let run = rule.made(id, &of(claim())).await;
        rule.taken(id, &of(ending(hold(id, &run)))).await;
        ids.push((id, label));
    }
    let operations = Operations::over_arc(Arc::clone(&subject.store), HOUR);
    let all = Filter::all;
    let any = all();
    let now = rule.read(|| operations.list(&any, None, 1)).await.now;
    let (past, future) = (Timestamp::from_millis(now.as_millis().saturating_sub(3_600_000)), now.plus(HOUR));
    let filters: [(Filter, &[&str]); 17] = [
        (all(), &["charge 1", "charge 2", "refund 1", "refund 2"]),
        (all().in_state(StateKind::Completed), &["charge 1"]),
        (all().in_state(StateKind::Interrupted), &["charge 2", "refund 1"]),
        (all().in_state(StateKind::Consumed), &["refund 2"]),
        (all().in_state(StateKind::Running), &[]),
        (all().caused_by(Cause::Unknown), &["refund 1"]),
        (all().caused_by(Cause::Answered(0)), &["charge 2"]),
        (all().caused_by(Cause::Panicked), &[]),
        (all().answered_with(504), &["charge 2"]),
        (all().answered_with(201), &["refund 2"]),
        (all().labelled("charge"), &["charge 1", "charge 2"]),
        (all().labelled("harge"), &[]),
        (all().of_scope([2; 32]), &["charge 2", "refund 2"]),
        (all().since(past).before(future).labelled("refund"), &["refund 1", "refund 2"]),
        (all().since(future), &[]),
        (all().before(past), &[]),
        (all().in_state(StateKind::Interrupted).labelled("refund").of_scope([1; 32]), &["refund 1"]),
    ];
    for (filter, expected) in filters {
        for limit in [1, 100] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let listing = rule.read(|| operations.list(&filter, after.as_ref(), limit)).await;
                let label = |id| ids.iter().find(|(one, _)| *one == id).map(|(_, label)| *label);
                found.extend(listing.operations.iter().filter_map(|one| label(one.id)));
                after = listing.next;
                if after.is_none() {
                    break;
                }
            }
            found.sort_unstable();
            rule.check(found == expected, || format!("{filter:?} selects {found:?}, not {expected:?}"));
        }
    }
}
