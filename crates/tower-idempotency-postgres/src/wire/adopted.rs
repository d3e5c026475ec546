//! Rows as parameters, to be written as they are.

use tokio_postgres::types::ToSql;

use super::types::{Time, Uuid};
use super::write::number;
use tower_idempotency_shared::for_backends::check_row;
use tower_idempotency_shared::{BackendError, Row};

/// Rows of operations that no process runs, as arrays: each has one column, for all the rows in their order.
#[derive(Default)]
pub(crate) struct RowArrays<'a> {
    ids: Vec<&'a [u8]>,
    tokens: Vec<Uuid>,
    fences: Vec<i64>,
    kinds: Vec<i16>,
    untils: Vec<Option<Time>>,
    began: Vec<Time>,
    since: Vec<Time>,
    expires: Vec<Time>,
    states: Vec<&'a [u8]>,
}

impl<'a> RowArrays<'a> {
    /// Fails if the database must not get one of the rows: [`BackendError::Never`].
    pub(crate) fn of(rows: &'a [Row]) -> Result<Self, BackendError> {
        let mut arrays = Self::default();
        for row in rows {
            check_row(row)?;
            arrays.ids.push(row.id.as_bytes());
            arrays.tokens.push(Uuid(row.token));
            arrays.fences.push(number(row.fence)?);
            arrays.kinds.push(row.kind.number());
            arrays.untils.push(row.until.map(Time));
            arrays.began.push(Time(row.began));
            arrays.since.push(Time(row.since));
            arrays.expires.push(Time(row.expires));
            arrays.states.push(&row.state);
        }
        Ok(arrays)
    }

    /// Returns the parameters of `ADOPT` in `queries.rs`, in their order. `earliest` is that of this process's clocks.
    pub(crate) fn all<'s>(&'s self, namespace: &'s String, earliest: &'s Time) -> [&'s (dyn ToSql + Sync); 11] {
        [
            namespace, &self.ids, &self.tokens, &self.fences, &self.kinds, &self.untils, &self.began, &self.since,
            &self.expires, &self.states, earliest,
        ]
    }
}
