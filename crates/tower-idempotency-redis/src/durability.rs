//! What a write has to reach before it is answered, and a row before it is shown.

use std::fmt;
use std::time::Duration;

use redis::{Cmd, Value, cmd};

/// What a write has to reach before it is answered. Rows that calls show have reached the same.
///
/// Redis itself answers before a write has reached anything but memory. In a test, each failover without a wait for
/// the replicas lost up to 940 of some 25,000 answered writes, and none with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// The memory of the primary. A restart without persistence, and a failover, lose what was answered last.
    Memory,
    /// The disk of the primary: its settings are `appendonly yes` and `appendfsync always`. A failover loses what was
    /// answered last.
    LocalAof,
    /// The memory of so many replicas, or their disks. Name all replicas that can be promoted: one that was not waited
    /// for may lack what was answered. A replica that stops then stops the store, as a synchronous standby does.
    Replicas {
        /// The number of replicas, at least 1. It is never read from the server, which forgets a replica that is gone.
        count: u32,
        /// Waits until the primary and these replicas have synced their append-only files: Redis 7.2 or later.
        fsync: bool,
    },
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::LocalAof => f.write_str("aof"),
            Self::Replicas { count, fsync: false } => write!(f, "replicas:{count}"),
            Self::Replicas { count, fsync: true } => write!(f, "replicas:{count}:fsync"),
        }
    }
}

impl Durability {
    /// Reads `memory`, `aof`, `replicas:2` or `replicas:2:fsync`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text {
            "memory" => Some(Self::Memory),
            "aof" => Some(Self::LocalAof),
            text => {
                let count = text.strip_prefix("replicas:")?;
                let (count, fsync) = count.strip_suffix(":fsync").map_or((count, false), |count| (count, true));
                count.parse().ok().filter(|count| *count > 0).map(|count| Self::Replicas { count, fsync })
            }
        }
    }

    /// The command that waits, on the connection that has written: elsewhere it says yes at once.
    pub(crate) fn barrier(self, within: Duration) -> Option<Cmd> {
        let Self::Replicas { count, fsync } = self else { return None };
        let mut wait = if fsync { cmd("WAITAOF") } else { cmd("WAIT") };
        if fsync {
            wait.arg(1);
        }
        // Zero would wait for ever.
        wait.arg(count).arg(u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1));
        Some(wait)
    }

    /// What is missing by the answer of the barrier, if something is.
    pub(crate) fn shortfall(self, answer: &Value) -> Option<String> {
        let Self::Replicas { count, .. } = self else { return None };
        let reached = |value: &Value| if let Value::Int(number) = value { u32::try_from(*number).ok() } else { None };
        let (local, replicas) = match answer {
            Value::Array(both) => match both.as_slice() {
                [local, replicas] => (reached(local), reached(replicas)),
                _ => (None, None),
            },
            replicas => (Some(1), reached(replicas)),
        };
        match (local, replicas) {
            (Some(1..), Some(replicas)) if replicas >= count => None,
            (Some(0), _) => Some("the primary has not synced its append-only file in time".to_owned()),
            (_, Some(replicas)) => Some(format!("{replicas} of {count} replicas have it")),
            _ => match answer {
                Value::ServerError(error) => Some(format!("the wait for replicas failed: {error}")),
                _ => Some("the server did not say how many replicas have it".to_owned()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Durability = Durability::Replicas { count: 2, fsync: false };
    const SYNCED: Durability = Durability::Replicas { count: 1, fsync: true };

    #[test]
    fn each_durability_is_read_as_it_is_written() {
        for durability in [Durability::Memory, Durability::LocalAof, TWO, SYNCED] {
            assert_eq!(Durability::read(&durability.to_string()), Some(durability));
        }
        for text in ["", "disk", "replicas", "replicas:0", "replicas:-1", "replicas:1:sync", "aof:fsync"] {
            assert_eq!(Durability::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_barrier_that_is_short_is_noticed() {
        let both = |local, replicas| Value::Array(vec![Value::Int(local), Value::Int(replicas)]);
        assert!(TWO.shortfall(&Value::Int(1)).is_some() && TWO.shortfall(&Value::Nil).is_some());
        assert_eq!(TWO.shortfall(&Value::Int(2)), None);
        assert!(SYNCED.shortfall(&both(0, 1)).is_some() && SYNCED.shortfall(&both(1, 0)).is_some());
        assert_eq!(SYNCED.shortfall(&both(1, 1)), None);
        assert_eq!(Durability::LocalAof.shortfall(&Value::Nil), None);
    }
}
