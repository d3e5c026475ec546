//! Counts what requests have done: the new items of a list, the growth of a number, or what the answers let infer.
//! `effects` of `probe.rs` chooses between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::http::message::Answer;

/// What a server says of its effects at one time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ledger {
    /// How often each item is there.
    Items(BTreeMap<String, usize>),
    Number(i64),
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Items(items) => write!(f, "{} items", items.values().sum::<usize>()),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl Ledger {
    /// Reads an answer: a list, an object with one list, a number, or an object with one number.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        if !answer.is_success() {
            return None;
        }
        let value = answer.json().or_else(|| std::str::from_utf8(&answer.body).ok()?.trim().parse().ok())?;
        let members = || value.as_object().into_iter().flat_map(|object| object.values());
        let mut lists = members().filter_map(Value::as_array);
        let mut numbers = members().filter_map(Value::as_i64);
        if let Some(items) = value.as_array().or_else(|| lists.next().filter(|_| lists.next().is_none())) {
            let mut counted = BTreeMap::new();
            for item in items {
                *counted.entry(named(item)).or_insert(0) += 1;
            }
            return Some(Self::Items(counted));
        }
        value.as_i64().or_else(|| numbers.next().filter(|_| numbers.next().is_none())).map(Self::Number)
    }

    /// Whether there are fewer effects than before. A list that shows the newest only stays as long as it was.
    pub(crate) fn is_less_than(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Items(before), Self::Items(after)) => after.values().sum::<usize>() < before.values().sum(),
            (Self::Number(before), Self::Number(after)) => after < before,
            _ => false,
        }
    }

    /// How many effects there are that were not there before. A list may show the newest only.
    pub(crate) fn since(&self, before: &Self) -> usize {
        match (before, self) {
            (Self::Items(before), Self::Items(after)) => {
                after.iter().map(|(item, count)| count.saturating_sub(before.get(item).copied().unwrap_or(0))).sum()
            }
            (Self::Number(before), Self::Number(after)) => usize::try_from(after - before).unwrap_or(0),
            _ => 0,
        }
    }
}

/// An item is what its `id` says, or else all of it.
fn named(item: &Value) -> String {
    item.get("id").unwrap_or(item).to_string()
}

/// Infers how many effects these answers to equal requests speak of: successes that are not equal come from different
/// runs.
pub(crate) fn inferred<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> usize {
    let successes = answers.into_iter().filter(|answer| answer.is_success());
    successes.map(Answer::content).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;

    fn answer(body: &str) -> Answer {
        Answer { body: Bytes::copy_from_slice(body.as_bytes()), ..Answer::default() }
    }

    fn since(before: &str, after: &str) -> Option<usize> {
        Some(Ledger::of(&answer(after))?.since(&Ledger::of(&answer(before))?))
    }

    #[test]
    fn what_is_new_is_counted() {
        assert_eq!(since("[]", r#"[{"id":1},{"id":2}]"#), Some(2));
        // The newest two of many, of which one is new. A charge that changes is no new one.
        let (before, after) =
            (r#"{"data":[{"id":1},{"id":2}],"more":true}"#, r#"{"data":[{"id":3},{"id":1,"x":1}],"more":true}"#);
        assert_eq!(since(before, after), Some(1));
        assert_eq!(since("[7]", "[7,7,7]"), Some(2));
        assert_eq!(since("3", " 5\n"), Some(2));
        assert_eq!(since(r#"{"count":3}"#, r#"{"count":4}"#), Some(1));
        for unreadable in ["", "x", "{}", r#"{"a":[],"b":[]}"#, r#"{"a":1,"b":2}"#] {
            assert!(Ledger::of(&answer(unreadable)).is_none(), "{unreadable}");
        }
    }

    // A list and a number are not compared.
    #[test]
    fn fewer_items_or_a_smaller_number_are_less() {
        for (before, after, is_less) in [
            ("[7,8]", "[7]", true),
            ("[7,7]", "[7]", true),
            ("[7]", "[8]", false),
            ("[7]", "[7,8]", false),
            ("3", "2", true),
            ("3", "3", false),
            ("3", "4", false),
            ("[7]", "0", false),
            ("3", "[]", false),
        ] {
            let [before_it, after_it] = [before, after].map(|body| Ledger::of(&answer(body)).unwrap());
            assert_eq!(after_it.is_less_than(&before_it), is_less, "{before} {after}");
        }
        assert_eq!(since("[7]", "9"), Some(0));
        assert_eq!(since("9", "[7,8]"), Some(0));
        assert_eq!(since("9", "7"), Some(0));
    }

    #[test]
    fn different_successes_are_different_runs() {
        let mut failed = answer("c");
        failed.status = StatusCode::CONFLICT;
        assert_eq!(inferred(&[answer("a"), answer("a"), failed]), 1);
        assert_eq!(inferred(&[answer("a"), answer("b")]), 2);
    }
}
