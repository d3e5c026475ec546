//! Writes as the parameters of a query.

use tokio_postgres::types::ToSql;

use super::types::{Millis, Time, Uuid};
use tower_idempotency::Fence;
use tower_idempotency_shared::for_backends::{check_write, millis};
use tower_idempotency_shared::{BackendError, Expect, NewExpiry, NewFence, Stamp, Write};

/// A write as twelve parameters. The namespace comes before them, and the clocks after them. `began_now` and
/// `since_now` say whether a time of the row is written anew or kept: when its operation began, and when the row came
/// to its state.
pub(crate) struct Parameters<'a> {
    pub(crate) id: &'a [u8],
    /// The token that the row must have. `None` expects no row.
    expect: Option<Uuid>,
    pub(crate) token: Uuid,
    /// The fence: [`NewFence::Exactly`], or [`NewFence::Above`], or neither to keep the row's.
    exactly: Option<i64>,
    above: Option<i64>,
    /// One more than `above`.
    at_least: Option<i64>,
    kind: i16,
    session: Option<&'a [u8]>,
    /// Milliseconds from the latest time, and not a time, like `expires` below.
    until: Option<Millis>,
    began_now: bool,
    since_now: bool,
    /// `None` keeps the row's expiry.
    pub(crate) expires: Option<Millis>,
    pub(crate) state: &'a [u8],
}

impl<'a> Parameters<'a> {
    /// Fails if the database must not get this write: [`BackendError::Never`].
    pub(crate) fn of(write: &'a Write) -> Result<Self, BackendError> {
        check_write(write)?;
        let expires = match write.expires {
            NewExpiry::Keep => None,
            NewExpiry::In(duration) => Some(Millis(millis(duration))),
        };
        let (exactly, above) = match write.fence {
            NewFence::Keep => (None, None),
            NewFence::Exactly(fence) => (Some(number(fence)?), None),
            NewFence::Above(fence) => (None, Some(number(fence)?)),
        };
        Ok(Self {
            id: write.id.as_bytes(),
            expect: match write.expect {
                Expect::Absent => None,
                Expect::Token(token) => Some(Uuid(token)),
            },
            token: Uuid(write.token),
            exactly,
            above,
            at_least: above.map(|above| number(Fence(above.cast_unsigned() + 1))).transpose()?,
            kind: write.kind.number(),
            session: write.session.as_ref().map(|session| session.as_bytes().as_slice()),
            until: write.until.map(|until| Millis(millis(until))),
            began_now: write.began == Stamp::Now,
            since_now: write.since == Stamp::Now,
            expires,
            state: &write.state,
        })
    }

    /// Returns the parameters of the claim `insert` in `queries.rs`, in their order, if the write is one with a new
    /// fence. `clocks` are the earliest and the latest time of this process.
    pub(crate) fn claim<'s>(
        &'s self,
        namespace: &'s &str,
        clocks: &'s [Time; 2],
    ) -> Option<[&'s (dyn ToSql + Sync); 11]> {
        (self.expect.is_none() && self.exactly.is_none()).then_some([
            namespace, &self.id, &self.token, &self.at_least, &self.kind, &self.session, &self.until, &self.expires,
            &self.state, &clocks[0], &clocks[1],
        ])
    }

    /// Returns the parameters of `update` in `queries.rs`, in their order, if the write keeps the row's fence and the
    /// time at which its operation began.
    pub(crate) fn outcome<'s>(
        &'s self,
        namespace: &'s &str,
        clocks: &'s [Time; 2],
    ) -> Option<[&'s (dyn ToSql + Sync); 12]> {
        let keeps = self.exactly.is_none() && self.above.is_none() && !self.began_now;
        (self.expect.is_some() && keeps).then_some([
            namespace, &self.id, &self.expect, &self.token, &self.kind, &self.session, &self.until, &self.since_now,
            &self.expires, &self.state, &clocks[0], &clocks[1],
        ])
    }

    /// Returns the parameters of `put_one_1` in `schema.sql`, in their order.
    pub(crate) fn alone<'s>(&'s self, namespace: &'s &str, clocks: &'s [Time; 2]) -> [&'s (dyn ToSql + Sync); 15] {
        [
            namespace, &self.id, &self.expect, &self.token, &self.exactly, &self.above, &self.kind, &self.session,
            &self.until, &self.began_now, &self.since_now, &self.expires, &self.state, &clocks[0], &clocks[1],
        ]
    }
}

/// Several writes, as arrays for `put_1`: each has one field of [`Parameters`], for all the writes in their order.
#[derive(Default)]
pub(crate) struct Arrays<'a> {
    ids: Vec<&'a [u8]>,
    expects: Vec<Option<Uuid>>,
    tokens: Vec<Uuid>,
    exactly: Vec<Option<i64>>,
    above: Vec<Option<i64>>,
    kinds: Vec<i16>,
    sessions: Vec<Option<&'a [u8]>>,
    untils: Vec<Option<Millis>>,
    began_now: Vec<bool>,
    since_now: Vec<bool>,
    expires: Vec<Option<Millis>>,
    states: Vec<&'a [u8]>,
}

impl<'a> Arrays<'a> {
    /// Fails if one of the writes can't be sent. The store then sends each by itself.
    pub(crate) fn of(writes: &'a [Write]) -> Result<Self, BackendError> {
        let mut arrays = Self::default();
        for write in writes {
            let Parameters {
                id,
                expect,
                token,
                exactly,
                above,
                at_least: _,
                kind,
                session,
                until,
                began_now,
                since_now,
                expires,
                state,
            } = Parameters::of(write)?;
            arrays.ids.push(id);
            arrays.expects.push(expect);
            arrays.tokens.push(token);
            arrays.exactly.push(exactly);
            arrays.above.push(above);
            arrays.kinds.push(kind);
            arrays.sessions.push(session);
            arrays.untils.push(until);
            arrays.began_now.push(began_now);
            arrays.since_now.push(since_now);
            arrays.expires.push(expires);
            arrays.states.push(state);
        }
        Ok(arrays)
    }

    /// Returns the parameters of `put_1`, in the order of `schema.sql`. `clocks` are as in `Parameters::alone`.
    pub(crate) fn together<'s>(&'s self, namespace: &'s &str, clocks: &'s [Time; 2]) -> [&'s (dyn ToSql + Sync); 15] {
        [
            namespace, &self.ids, &self.expects, &self.tokens, &self.exactly, &self.above, &self.kinds, &self.sessions,
            &self.untils, &self.began_now, &self.since_now, &self.expires, &self.states, &clocks[0], &clocks[1],
        ]
    }
}

pub(super) fn number(fence: Fence) -> Result<i64, BackendError> {
    i64::try_from(fence.0).map_err(|_| BackendError::Never(format!("the fence {fence} is beyond 63 bits").into()))
}
