//! Writes that arrive late, and calls that are dropped.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join;
use tower_idempotency_shared::{Backend, Clocks, Row, Write};

use crate::backend::rule::{Bears, Rule, is_done};
use crate::backend::sample::{AT_ONCE, HOUR, claim, complete, steps};
use crate::backend::subject::BackendSubject;
use crate::fresh::fresh_id;

/// Each write, held back while each other is done that expects the same: it is refused when it arrives.
pub(crate) async fn a_write_held_back_is_refused_after_a_later_one<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "compare when the write is executed, in the same step, and with the token: neither a look before it nor the \
                  fence shows that another write came in between";
    let rule = Rule::new(subject, "a_write_held_back_is_refused_after_a_later_one", advice);
    let hook = subject.another_process.as_ref().zip(subject.hold.as_ref());
    if hook.is_none() {
        rule.leave_out("`another_process` and `held_back_by`, so the calls are made in that order instead");
    }
    let count = steps(&rule.done(&claim(fresh_id())).await).len();
    for first in 0..=count {
        for second in 0..count {
            let row = rule.done(&claim(fresh_id())).await;
            let (step, late) = match first.checked_sub(1) {
                None => ("claim", claim(row.id)),
                Some(at) => steps(&row).swap_remove(at),
            };
            let (later_step, later) = steps(&row).swap_remove(second);
            let (found, answered) = match hook {
                None => (rule.done(&later).await, rule.write(&late).await),
                Some((another, hold)) => {
                    let release = hold();
                    let overtaking = async {
                        let row = done_by(&rule, another, &later).await;
                        release();
                        row
                    };
                    let (answered, found) = rule.within(join(rule.write(&late), overtaking)).await;
                    (found, answered)
                }
            };
            rule.check(!is_done(answered.as_ref(), &late), || {
                format!("to {step}, held back until after to {later_step}, was done all the same")
            });
            let is = rule.get(row.id).await;
            rule.check(is.as_ref() == Some(&found), || {
                format!("to {step}, held back until after to {later_step}, made {is:?} of {found:?}")
            });
        }
    }
}

/// A write that is held back counts its durations, and takes its stamps and its fence, from when it is done.
pub(crate) async fn a_write_held_back_counts_from_when_it_is_done<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "send durations, and let the database add them to its own time in the step that writes";
    let rule = Rule::new(subject, "a_write_held_back_counts_from_when_it_is_done", advice);
    let Some(hold) = &subject.hold else { return rule.leave_out("`held_back_by`") };
    let write = claim(fresh_id());
    let release = hold();
    let letting_go = async {
        rule.pass(AT_ONCE * 5).await;
        let before = rule.now().await;
        release();
        before
    };
    let (row, before) = rule.within(join(rule.done(&write), letting_go)).await;
    let counts = row.until.is_some_and(|until| before.plus(HOUR) <= until) && before.plus(HOUR) <= row.expires;
    let is_stamped = before <= row.began && before <= row.since && before.as_millis() * 1_000 <= row.fence.0;
    rule.check(counts && is_stamped, || format!("held back until {before:?}, a write made {row:?}"));
}

async fn done_by<B: Backend>(rule: &Rule<'_, B>, backend: &B, write: &Write) -> Row {
    let row = rule.put_by(backend, std::slice::from_ref(write)).await.rows.remove(0);
    rule.check(is_done(row.as_ref(), write), || format!("{write:?} was not done; the answer was {row:?}"));
    row.unwrap_or_else(|| rule.fail("no row was answered"))
}

/// Each write of a row's life, executed once more after each that came later: nothing changes.
pub(crate) async fn an_earlier_write_sent_again_is_refused<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "recognise a write by its token alone, drawn by the writer: a version that the database counts repeats, and a \
                  fence may be another's";
    let rule = Rule::new(subject, "an_earlier_write_sent_again_is_refused", advice);
    let claimed = claim(fresh_id());
    let mut row = rule.done(&claimed).await;
    let mut life = vec![("claim", claimed)];
    for round in 0..steps(&row).len() {
        let (step, write) = steps(&row).swap_remove(round);
        row = rule.done(&write).await;
        for (earlier_step, earlier) in &life {
            let answered = rule.refused(earlier).await;
            let found = rule.get(row.id).await;
            rule.check(answered.as_ref() == Some(&row) && found.as_ref() == Some(&row), || {
                format!("to {earlier_step}, sent again after to {step}, made {found:?} of {row:?}")
            });
        }
        life.push((step, write));
    }
}

/// Calls are dropped, some at once and some under way: the backend can be used as before, and each write, sent again,
/// is done once.
pub(crate) async fn a_dropped_call_leaves_the_backend_usable<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "give up a connection whose answer was not read, or read it before the next use; hold no lock that a dropped \
                  future would leave locked";
    let rule = Rule::new(subject, "a_dropped_call_leaves_the_backend_usable", advice);
    let backend = &subject.backend;
    for round in 0..40 {
        let write = claim(fresh_id());
        let writes = std::slice::from_ref(&write);
        drop_under_way(round, backend.put(Clocks::default(), writes)).await;
        drop_under_way(round + 1, backend.get(Clocks::default(), &[write.id])).await;
        drop_under_way(round + 2, backend.list(Clocks::default(), &[], None, 10)).await;
        let first = rule.within(rule.settled(backend, writes, Bears::Any)).await.remove(0);
        rule.check(is_done(first.as_ref(), &write), || {
            format!("a claim whose call was dropped, sent again, was answered {first:?}")
        });
        let Some(row) = first else { continue };
        let completed = complete(&row);
        drop_under_way(round, backend.put(Clocks::default(), std::slice::from_ref(&completed))).await;
        let done = rule.within(rule.settled(backend, std::slice::from_ref(&completed), Bears::Any)).await.remove(0);
        rule.check(done.is_some_and(|done| done.token == completed.token && done.fence == row.fence), || {
            "to complete, dropped and sent again, was not done, or has changed the fence".to_owned()
        });
    }
}

/// Drops a call after its first step, or somewhere on its way.
async fn drop_under_way<T>(round: u64, call: impl Future<Output = T>) {
    if round.is_multiple_of(2) {
        drop(call.now_or_never());
    } else {
        drop(tokio::time::timeout(Duration::from_micros(round * 50), call).await);
    }
}
