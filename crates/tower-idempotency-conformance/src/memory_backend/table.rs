//! Rows, past their expiry or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::{Kind, Row};

/// Namespace and id.
pub(super) type Key = (Arc<str>, RecordId);

/// The rows of all namespaces.
#[derive(Debug, Default, Clone)]
pub(super) struct Table(BTreeMap<Key, Row>);

impl Table {
    /// The row as it is kept, past its expiry or not.
    pub(super) fn there(&self, key: &Key) -> Option<&Row> {
        self.0.get(key)
    }

    pub(super) fn set(&mut self, key: Key, row: Option<Row>) {
        match row {
            Some(row) => self.0.insert(key, row),
            None => self.0.remove(&key),
        };
    }

    /// The row, unless it counts as absent.
    pub(super) fn read(&self, key: &Key, earliest: Timestamp) -> Option<Row> {
        self.there(key).filter(|row| !row.is_absent(earliest)).cloned()
    }

    pub(super) fn sessions(&self, namespace: &str, earliest: Timestamp) -> Vec<Row> {
        let rows = self.keys(namespace).filter_map(|key| self.read(key, earliest));
        rows.filter(|row| row.kind == Kind::Session).collect()
    }

    pub(super) fn list(
        &self,
        namespace: &str,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
        earliest: Timestamp,
    ) -> Vec<Row> {
        let place = |row: &Row| (row.began, row.id);
        let mut rows: Vec<Row> = self
            .keys(namespace)
            .filter_map(|key| self.read(key, earliest))
            .filter(|row| row.is_listed(earliest, alive) && after.is_none_or(|after| after < place(row)))
            .collect();
        rows.sort_by_key(place);
        rows.truncate(limit);
        rows.into_iter().map(|row| if row.kind == Kind::Disputed { cut(row) } else { row }).collect()
    }

    /// The rows of operations after `after`, at most `limit`, in the order of their ids.
    pub(super) fn scan(&self, namespace: &str, after: Option<RecordId>, limit: usize, earliest: Timestamp) -> Vec<Row> {
        let rows = self.keys(namespace).filter(|(_, id)| Some(*id) > after).filter_map(|key| self.read(key, earliest));
        rows.filter(|row| !matches!(row.kind, Kind::Released | Kind::Session | Kind::Disputed))
            .take(limit)
            .map(cut)
            .collect()
    }

    /// Those that may be deleted, at most `limit`.
    pub(super) fn past_grace(&self, namespace: &str, limit: usize, earliest: Timestamp) -> Vec<Key> {
        let is_past_grace = |key: &&Key| self.there(key).is_some_and(|row| row.is_past_grace(earliest));
        self.keys(namespace).filter(is_past_grace).take(limit).cloned().collect()
    }

    /// All rows of a namespace as they are kept, in the order of their ids.
    pub(super) fn all(&self, namespace: &str) -> Vec<Row> {
        self.keys(namespace).filter_map(|key| self.there(key)).cloned().collect()
    }

    fn keys<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Key> {
        self.0.keys().filter(move |key| *key.0 == *namespace)
    }
}

/// The row as it is listed: of a large state only the beginning.
fn cut(row: Row) -> Row {
    if row.state.len() > 2_048 { Row { state: row.state.slice(..1_024), ..row } } else { row }
}
