//! What a write has to reach before it is answered, and a row before it is shown.

use std::fmt;
use std::time::Duration;

use redis::{Cmd, Value, cmd, from_redis_value};

/// What a write has to reach before it is answered. Rows that calls show have reached the same.
///
/// Redis itself answers before a write has reached anything but memory. A failover to a replica that was cut off lost
/// all that was answered meanwhile without a wait for it, and nothing with it: see the guide.
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
        /// Waits until the primary and these replicas have synced their append-only files: Redis 7.2 or later, and all
        /// of them with `appendfsync always`. Otherwise each call would take up to a second.
        fsync: bool,
    },
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::LocalAof => f.write_str("aof"),
            Self::Replicas { count, fsync } => write!(f, "replicas:{count}{}", if *fsync { ":fsync" } else { "" }),
        }
    }
}

impl Durability {
    /// Reads `memory`, `aof`, `replicas:2` or `replicas:2:fsync`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let replicas = |count: &str, fsync| {
            let count = count.parse().ok().filter(|count| *count > 0);
            count.map(|count| Self::Replicas { count, fsync })
        };
        match *text.split(':').collect::<Vec<_>>() {
            ["memory"] => Some(Self::Memory),
            ["aof"] => Some(Self::LocalAof),
            ["replicas", count] => replicas(count, false),
            ["replicas", count, "fsync"] => replicas(count, true),
            _ => None,
        }
    }

    /// The commands that wait, on the connection that has written: elsewhere they say yes at once. The last one's
    /// answer counts.
    ///
    /// A replica says what it has synced when it is asked, or each second. One that is asked along with the write has
    /// not synced it yet. So it is asked for its disk once it has the write in memory.
    pub(crate) fn barrier(self, within: Duration) -> Vec<Cmd> {
        let Self::Replicas { count, fsync } = self else { return Vec::new() };
        // Zero would wait for ever.
        let within = (within.as_millis() / if fsync { 2 } else { 1 }).max(1);
        let memory = cmd("WAIT").arg(count).arg(within).to_owned();
        let disk = cmd("WAITAOF").arg(1).arg(count).arg(within).to_owned();
        if fsync { vec![memory, disk] } else { vec![memory] }
    }

    /// What is missing by the last answer of the barrier, if something is.
    pub(crate) fn shortfall(self, answer: Value) -> Option<String> {
        let Self::Replicas { count, fsync } = self else { return None };
        let answer = if fsync { answer } else { Value::Array(vec![Value::Int(1), answer]) };
        match from_redis_value::<(u32, u32)>(answer) {
            Ok((1.., replicas)) if replicas >= count => None,
            Ok((0, _)) => Some("the primary has not synced its append-only file in time".to_owned()),
            Ok((_, replicas)) => Some(format!("{replicas} of {count} replicas have it")),
            Err(error) => Some(format!("the server did not say how many replicas have it: {error}")),
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
        assert!(TWO.shortfall(Value::Int(1)).is_some() && TWO.shortfall(Value::Nil).is_some());
        assert_eq!(TWO.shortfall(Value::Int(2)), None);
        assert!(SYNCED.shortfall(both(0, 1)).is_some() && SYNCED.shortfall(both(1, 0)).is_some());
        assert!(SYNCED.shortfall(Value::Int(1)).is_some());
        assert_eq!(SYNCED.shortfall(both(1, 1)), None);
        assert_eq!(Durability::LocalAof.shortfall(Value::Nil), None);
    }
}
