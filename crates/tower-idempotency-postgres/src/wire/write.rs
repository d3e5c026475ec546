//! Writes, and rows to be written as they are, as the parameters of a query. A claim and an end are such writes.

use tokio_postgres::types::ToSql;

use super::types::{Millis, Time, Uuid};
use tower_idempotency::Fence;
use tower_idempotency_shared::for_backends::{check_row, check_write, millis, signed};
use tower_idempotency_shared::{BackendError, Expect, NewExpiry, NewFence, Row, Stamp, Write};

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
        let expires = if let NewExpiry::In(expires) = write.expires { Some(expires) } else { None };
        let (exactly, above) = match write.fence {
            NewFence::Keep => (None, None),
            NewFence::Exactly(fence) => (Some(signed(fence)?), None),
            NewFence::Above(fence) => (None, Some(signed(fence)?)),
        };
        Ok(Self {
            id: write.id.as_bytes(),
            expect: if let Expect::Token(token) = write.expect { Some(Uuid(token)) } else { None },
            token: Uuid(write.token),
            exactly,
            above,
            at_least: above.map(|above| signed(Fence(above.cast_unsigned() + 1))).transpose()?,
            kind: write.kind.number(),
            session: write.session.as_ref().map(|session| session.as_bytes().as_slice()),
            until: write.until.map(|until| Millis(millis(until))),
            began_now: write.began == Stamp::Now,
            since_now: write.since == Stamp::Now,
            expires: expires.map(|expires| Millis(millis(expires))),
            state: &write.state,
        })
    }

    /// Returns the parameters of the claim `insert` in `queries.rs`, in their order, if the write is one with a new
    /// fence. `clocks` are the earliest and the latest time of this process.
    pub(crate) fn claim<'s>(
        &'s self,
        namespace: &'s String,
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
        namespace: &'s String,
        clocks: &'s [Time; 2],
    ) -> Option<[&'s (dyn ToSql + Sync); 12]> {
        let keeps = self.exactly.is_none() && self.above.is_none() && !self.began_now;
        (self.expect.is_some() && keeps).then_some([
            namespace, &self.id, &self.expect, &self.token, &self.kind, &self.session, &self.until, &self.since_now,
            &self.expires, &self.state, &clocks[0], &clocks[1],
        ])
    }

    /// Returns the parameters of `put_one_1` in `schema.sql`, in their order.
    pub(crate) fn alone<'s>(&'s self, namespace: &'s String, clocks: &'s [Time; 2]) -> [&'s (dyn ToSql + Sync); 15] {
        [
            namespace, &self.id, &self.expect, &self.token, &self.exactly, &self.above, &self.kind, &self.session,
            &self.until, &self.began_now, &self.since_now, &self.expires, &self.state, &clocks[0], &clocks[1],
        ]
    }
}

/// One column of several rows, in their order.
pub(crate) type Column<'a> = Box<dyn ToSql + Send + Sync + 'a>;

fn column<'a, R, T>(rows: impl IntoIterator<Item = R>, value: impl Fn(R) -> T) -> Column<'a>
where
    T: ToSql + Send + Sync + 'a,
{
    Box::new(rows.into_iter().map(value).collect::<Vec<T>>())
}

/// Returns several writes as the parameters of `put_1` in `schema.sql`, in their order, but for the namespace before
/// them and the clocks after them. Fails if one of the writes can't be sent. The store then sends each by itself.
pub(crate) fn columns(writes: &[Write]) -> Result<[Column<'_>; 12], BackendError> {
    let writes = writes.iter().map(Parameters::of).collect::<Result<Vec<_>, _>>()?;
    Ok([
        column(&writes, |write| write.id),
        column(&writes, |write| write.expect),
        column(&writes, |write| write.token),
        column(&writes, |write| write.exactly),
        column(&writes, |write| write.above),
        column(&writes, |write| write.kind),
        column(&writes, |write| write.session),
        column(&writes, |write| write.until),
        column(&writes, |write| write.began_now),
        column(&writes, |write| write.since_now),
        column(&writes, |write| write.expires),
        column(&writes, |write| write.state),
    ])
}

/// Returns rows of operations that no process runs as the parameters of `ADOPT` in `queries.rs`, in their order, but
/// for the namespace before them and the earliest time after them. Fails if the database must not get one of the rows:
/// [`BackendError::Never`].
pub(crate) fn adopted(rows: &[Row]) -> Result<[Column<'_>; 9], BackendError> {
    rows.iter().try_for_each(check_row)?;
    let fences = rows.iter().map(|row| signed(row.fence)).collect::<Result<Vec<_>, _>>()?;
    Ok([
        column(rows, |row| row.id.as_bytes().as_slice()),
        column(rows, |row| Uuid(row.token)),
        Box::new(fences),
        column(rows, |row| row.kind.number()),
        column(rows, |row| row.until.map(Time)),
        column(rows, |row| Time(row.began)),
        column(rows, |row| Time(row.since)),
        column(rows, |row| Time(row.expires)),
        column(rows, |row| &*row.state),
    ])
}

/// Returns these parameters in one list.
pub(crate) fn together<'s>(
    namespace: &'s String,
    columns: &'s [Column<'_>],
    clocks: &'s [Time],
) -> Vec<&'s (dyn ToSql + Sync)> {
    let columns = columns.iter().map(|column| &**column as &(dyn ToSql + Sync));
    let clocks = clocks.iter().map(|time| time as _);
    [namespace as _].into_iter().chain(columns).chain(clocks).collect()
}
