//! The cases in which a write is done.

use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{Backend, Expect, Kind, NewExpiry, NewFence, Token, Write};

use crate::backend::rule::{Rule, is_done};
use crate::backend::sample::{claim, complete, fresh_token};
use crate::backend::subject::BackendSubject;
use crate::fresh::fresh_id;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InitialRow {
    Nothing,
    Row,
    Released,
    Expired,
}

impl InitialRow {
    const ALL: [Self; 4] = [Self::Nothing, Self::Row, Self::Released, Self::Expired];

    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "no row",
            Self::Row => "a row",
            Self::Released => "a released row",
            Self::Expired => "a row past its expiry",
        }
    }

    /// Leaves it there, and gives its token.
    async fn leave<B: Backend>(self, rule: &Rule<'_, B>, id: RecordId) -> Token {
        match self {
            Self::Nothing => fresh_token(),
            Self::Row => rule.done(&claim(id)).await.token,
            Self::Released => {
                let row = rule.done(&claim(id)).await;
                rule.done(&Write { kind: Kind::Released, ..complete(&row) }).await.token
            }
            Self::Expired => rule.expired(id, Fence(1)).await.token,
        }
    }
}

/// The cases: the expectation × the row × whether the row has the write's own token. The write is done in exactly the
/// cases that [`Backend::put`] names.
pub(crate) async fn a_write_is_done_where_what_it_expects_is_there<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "compare in the same step in which you write: absent means no row, or one past its expiry; a row that is \
                  there matches by the expected token or by the write's own, and by nothing else";
    let rule = Rule::new(subject, "a_write_is_done_where_what_it_expects_is_there", advice);
    for initial in InitialRow::ALL {
        for (what, is_token, is_that) in
            [("none", false, false), ("its token", true, true), ("another token", true, false)]
        {
            for is_own in [false, true] {
                let id = fresh_id();
                let token = initial.leave(&rule, id).await;
                let expect = match (is_token, is_that) {
                    (false, _) => Expect::Absent,
                    (true, true) => Expect::Token(token),
                    (true, false) => Expect::Token(fresh_token()),
                };
                let is_there = matches!(initial, InitialRow::Row | InitialRow::Released);
                let should = if is_there { is_own || is_that } else { !is_token };
                let write = Write { expect, token: if is_own { token } else { fresh_token() }, ..claim(id) };
                let row = rule.write(&write).await;
                rule.check(is_done(row.as_ref(), &write) == should, || {
                    let own = if is_own { "and its own token" } else { "and not its own token" };
                    let done = if should { "was not done" } else { "was done" };
                    format!("a write that expects {what}, where {} is there {own}, {done}", initial.words())
                });
                let found = rule.get(id).await;
                rule.check(found == row, || format!("put answered {row:?}, and get {found:?}"));
            }
        }
    }
}

/// A released row counts as there for as long as it has not expired: a claim that comes after its own release is
/// refused.
pub(crate) async fn a_released_row_is_not_absent<B: Backend>(subject: &BackendSubject<B>) {
    let advice =
        "don't delete a row because of its kind, and let `Expect::Absent` match only no row, or one past its expiry";
    let rule = Rule::new(subject, "a_released_row_is_not_absent", advice);
    let id = fresh_id();
    let claimed = claim(id);
    let row = rule.done(&claimed).await;
    let released = rule.done(&Write { kind: Kind::Released, ..complete(&row) }).await;
    for late in [claimed, claim(id)] {
        let answered = rule.refused(&late).await;
        rule.check(answered.as_ref() == Some(&released), || {
            format!("a late claim of a released row was answered {answered:?}")
        });
    }
    // Who knows it claims it.
    rule.done(&Write { expect: Expect::Token(released.token), ..claim(id) }).await;
}

/// A row past its expiry is not read, and no token matches it, not even the write's own.
pub(crate) async fn an_expired_row_is_not_there<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "compare the expiry with the database's time in `get` and in `put`, whether the row was swept or not";
    let rule = Rule::new(subject, "an_expired_row_is_not_there", advice);
    let id = fresh_id();
    let left = rule.expired(id, Fence(1)).await;
    for expect in [left.expect, Expect::Token(left.token)] {
        for token in [left.token, fresh_token()] {
            let late = Write { expect, token, expires: NewExpiry::In(crate::backend::sample::HOUR), ..left.clone() };
            let row = rule.write(&late).await;
            rule.check(row.is_none(), || format!("a write that expects a token was done over an expired row: {row:?}"));
        }
    }
    // Sent again after its expiry, a claim is a new one.
    let claimed = rule.done(&Write { token: left.token, ..claim(id) }).await;
    rule.check(claimed.fence > Fence(1), || "a claim over an expired row of the same token has its fence".to_owned());
}

/// A row past its expiry is claimed over: with a fence above its own, as an operation that begins now.
pub(crate) async fn an_expired_row_is_claimed_over<B: Backend>(subject: &BackendSubject<B>) {
    let advice =
        "claim a row past its expiry over by an update, which takes its fence into account and nothing else of it";
    let rule = Rule::new(subject, "an_expired_row_is_claimed_over", advice);
    let id = fresh_id();
    // A fence that the clock does not reach.
    let fence = Fence(rule.now().await.plus(crate::backend::sample::HOUR).as_millis() * 1_000);
    rule.expired(id, fence).await;
    let before = rule.now().await;
    let write = Write { began: tower_idempotency_shared::Stamp::Keep, fence: NewFence::Above(Fence(0)), ..claim(id) };
    let row = rule.done(&write).await;
    rule.check(row.fence == Fence(fence.0 + 1), || {
        format!("the expired row had fence {fence}, and the claim over it got {}, not one more", row.fence)
    });
    rule.check(before <= row.began, || format!("it began at {:?}, before it was claimed at {before:?}", row.began));
}
