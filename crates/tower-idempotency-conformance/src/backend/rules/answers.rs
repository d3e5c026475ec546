//! The answers to writes.

use bytes::Bytes;
use tower_idempotency_shared::{Backend, Expect, Kind, Write};

use crate::backend::rule::Rule;
use crate::backend::sample::{HOUR, claim, complete, fresh_token, session};
use crate::backend::subject::BackendSubject;
use crate::fresh::{fresh_id, fresh_ids};

/// A write that is refused leaves the row as it is, in every field, and is answered that row.
pub(crate) async fn a_refused_write_changes_nothing<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "change nothing at all where neither what is expected nor the write's own token is there, and read the row \
                  as it is then";
    let rule = Rule::new(subject, "a_refused_write_changes_nothing", advice);
    let (id, of) = (fresh_id(), fresh_id());
    rule.done(&session(of, HOUR)).await;
    let row = rule.done(&Write { session: Some(of), ..claim(id) }).await;
    rule.pass(crate::backend::sample::AT_ONCE * 2).await;
    for expect in [Expect::Absent, Expect::Token(fresh_token())] {
        for kind in [Kind::Running, Kind::Completed, Kind::Released, Kind::Session] {
            let refused = Write { expect, kind, token: fresh_token(), state: Bytes::from_static(b"no"), ..claim(id) };
            let answered = rule.refused(&refused).await;
            rule.check(answered.as_ref() == Some(&row), || format!("{row:?} was there, and {answered:?} was answered"));
            let found = rule.get(id).await;
            rule.check(found.as_ref() == Some(&row), || format!("{row:?} has become {found:?}"));
        }
    }
}

/// One put does some writes and refuses others, and answers each in its place.
pub(crate) async fn writes_of_one_put_do_not_depend_on_each_other<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "judge each write by itself; lock in the order of the ids, and answer in the order of the writes";
    let rule = Rule::new(subject, "writes_of_one_put_do_not_depend_on_each_other", advice);
    let ids = fresh_ids(40);
    let there: Vec<Write> = ids.iter().step_by(3).map(|id| claim(*id)).collect();
    rule.put(&there).await;
    let writes: Vec<Write> = ids.iter().map(|id| claim(*id)).collect();
    let answer = rule.put(&writes).await;
    for (at, (write, row)) in writes.iter().zip(&answer.rows).enumerate() {
        let token = if at % 3 == 0 { there[at / 3].token } else { write.token };
        let is_right = row.as_ref().is_some_and(|row| row.id == write.id && row.token == token);
        rule.check(is_right, || format!("write {at} of {} was answered {row:?}", write.id.short()));
    }
    let answer = rule.put(&[]).await;
    rule.check(answer.rows.is_empty(), || "a put of nothing was answered rows".to_owned());
}

/// `get` answers in the order of the ids, an id that is asked for twice twice, and `None` for one that is absent.
pub(crate) async fn rows_are_answered_in_the_order_asked<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "join the ids that were asked for with the rows, in the order in which they were asked for";
    let rule = Rule::new(subject, "rows_are_answered_in_the_order_asked", advice);
    let mut ids = fresh_ids(30);
    let there: Vec<Write> = ids.iter().skip(10).map(|id| claim(*id)).collect();
    rule.put(&there).await;
    ids.sort_by_key(|id| std::cmp::Reverse(*id));
    ids.extend([there[0].id, there[7].id]);
    let absent = ids.iter().find(|id| there.iter().all(|write| write.id != **id)).copied();
    ids.extend(absent);
    let answer = rule.get_by(&subject.backend, &ids).await;
    for (id, row) in ids.iter().zip(&answer.rows) {
        let should = there.iter().any(|write| write.id == *id).then_some(*id);
        let was = row.as_ref().map(|row| row.id);
        rule.check(was == should, || format!("{should:?} was to be answered, and {was:?} was"));
    }
}

/// A write that is done replaces kind, session, until and state, also by nothing.
pub(crate) async fn a_put_replaces_all_that_it_names<B: Backend>(subject: &BackendSubject<B>) {
    let advice =
        "set kind, session, until and state to what the write says; `None` and no bytes are values like others";
    let rule = Rule::new(subject, "a_put_replaces_all_that_it_names", advice);
    let (id, of) = (fresh_id(), fresh_id());
    let full = |state| Write { session: Some(of), until: Some(HOUR), state, ..claim(id) };
    let row = rule.done(&full(Bytes::from_static(b"first"))).await;
    let bare = Write { kind: Kind::Interrupted, state: Bytes::new(), ..complete(&row) };
    let again = Write { expect: Expect::Token(bare.token), token: fresh_token(), ..full(Bytes::from_static(b"third")) };
    for write in [&bare, &again] {
        let row = rule.done(write).await;
        let is_so = (row.kind, row.session, row.until.is_some(), &row.state)
            == (write.kind, write.session, write.until.is_some(), &write.state);
        rule.check(is_so, || format!("{write:?} made {row:?}"));
        let found = rule.get(id).await;
        rule.check(found.as_ref() == Some(&row), || format!("put answered {row:?}, and get {found:?}"));
    }
}
