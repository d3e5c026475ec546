//! Many writes at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use futures_util::future::{join, join_all};
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{Backend, Clocks, NewExpiry, Row, Write};

use crate::backend::rule::{Bears, Rule, is_done};
use crate::backend::sample::{AT_ONCE, HOUR, claim, complete};
use crate::backend::subject::BackendSubject;
use crate::fresh::{fresh_id, fresh_ids};

/// The number of all those puts that may find a row locked for too long. If puts lock in the order of their writes, one
/// of the two does in nearly each round of claims.
const LOCKED: u32 = 2;

/// A thousand claims of one id at once, by two processes if there are two: one is granted, and all answers have it.
pub(crate) async fn one_of_a_thousand_claims_is_granted<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "let one atomic step find that the row is absent and write it, also where the row is past its expiry; and let \
                  calls wait for a connection rather than fail";
    let rule = Rule::new(subject, "one_of_a_thousand_claims_is_granted", advice);
    let other = subject.another_process.as_ref().unwrap_or(&subject.backend);
    let (absent, expired) = (fresh_id(), fresh_id());
    rule.expired(expired, Fence(1)).await;
    for id in [absent, expired] {
        let claims: Vec<Write> = (0..1_000).map(|_| claim(id)).collect();
        let claim = |(at, write): (usize, _)| {
            let backend = if at % 2 == 0 { &subject.backend } else { other };
            rule.settled(backend, std::slice::from_ref(write), Bears::Any)
        };
        let rows: Vec<Option<Row>> =
            rule.within(join_all(claims.iter().enumerate().map(claim))).await.into_iter().flatten().collect();
        let granted = claims.iter().zip(&rows).filter(|(write, row)| is_done(row.as_ref(), write)).count();
        rule.check(granted == 1, || format!("{granted} of a thousand claims of one id were granted"));
        let first = &rows[0];
        rule.check(rows.iter().all(|row| row == first), || "their answers have different rows".to_owned());
    }
}

/// Two puts at once have 64 ids in common, in opposite order, claims and then outcomes: both end, and each row is
/// written by one of them.
pub(crate) async fn batches_in_opposite_order_both_end<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "lock the rows of a put in the order of their ids, whatever the order of the writes is: otherwise two puts \
                  wait for each other, or the database ends one of them";
    let rule = Rule::new(subject, "batches_in_opposite_order_both_end", advice);
    let other = subject.another_process.as_ref().unwrap_or(&subject.backend);
    let locked = AtomicU32::new(LOCKED);
    let (mut ids, mut there) = (Vec::new(), Vec::new());
    for round in 0..20 {
        if round % 2 == 0 {
            ids = fresh_ids(64);
            there = vec![None; ids.len()];
        }
        let batch = || -> Vec<Write> {
            let writes = ids.iter().zip(&there);
            writes.map(|(id, row)| row.as_ref().map_or_else(|| claim(*id), complete)).collect()
        };
        let (ahead, mut back) = (batch(), batch());
        back.reverse();
        let bears = Bears::Busy(&locked);
        let puts = join(rule.settled(&subject.backend, &ahead, bears), rule.settled(other, &back, bears));
        let (first, mut second) = rule.within(puts).await;
        back.reverse();
        second.reverse();
        for ((ahead, back), (first, second)) in ahead.iter().zip(&back).zip(first.iter().zip(&second)) {
            let granted = u8::from(is_done(first.as_ref(), ahead)) + u8::from(is_done(second.as_ref(), back));
            rule.check(granted == 1, || format!("{granted} of two writes that expect the same were done"));
            rule.check(first == second, || format!("one was answered {first:?}, the other {second:?}"));
        }
        there = first;
        ids.reverse();
        there.reverse();
    }
}

/// Four claimers of one id whose claims expire at once, and a sweeper: each claim's fence is above those of all that
/// were granted before it was sent.
pub(crate) async fn fences_grow_through_claims_expiries_and_sweeps<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "take the row's fence into account even past its expiry, and delete no row before its grace is over: a row \
                  that is made anew has a smaller fence";
    let rule = Rule::new(subject, "fences_grow_through_claims_expiries_and_sweeps", advice);
    let other = subject.another_process.as_ref().unwrap_or(&subject.backend);
    let id = fresh_id();
    // A fence that the clock does not reach: so the row has to remember it.
    let first = Fence(rule.now().await.plus(HOUR).as_millis() * 1_000);
    rule.expired(id, first).await;
    let highest = AtomicU64::new(first.0);
    let claimers =
        [&subject.backend, other, &subject.backend, other].map(|backend| claimer(&rule, backend, id, &highest));
    rule.within(join_all(claimers)).await;
}

async fn claimer<B: Backend>(rule: &Rule<'_, B>, backend: &B, id: RecordId, highest: &AtomicU64) {
    let mut granted = 0;
    while granted < 25 {
        let above = highest.load(Ordering::SeqCst);
        let write = Write { expires: NewExpiry::In(AT_ONCE * 3), ..claim(id) };
        let row = rule.settled(backend, std::slice::from_ref(&write), Bears::Any).await.remove(0);
        if let Some(row) = row.filter(|row| row.token == write.token) {
            granted += 1;
            rule.check(row.fence.0 > above, || format!("a claim got fence {} after {above}", row.fence));
            highest.fetch_max(row.fence.0, Ordering::SeqCst);
            rule.answered("delete expired rows", backend.delete_expired(Clocks::default(), 10).await);
        }
        rule.pass(AT_ONCE).await;
    }
}
