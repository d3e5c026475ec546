//! How the server is set up, what it can lose so, and what the store must not take.

use std::collections::HashMap;

use redis::{Value, cmd};
use tower_idempotency_shared::{BackendError, Guarantee};

use super::database::{Database, Limit};
use super::durability::Durability;
use super::error::RedisError;
use super::wire::row::text;

/// The share of the memory from which on new keys are refused, in hundredths.
const FULL: u64 = 95;

/// The settings of the server that count, by `INFO` and, where the user may ask, `CONFIG GET`.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    info: HashMap<String, String>,
    appendfsync: Option<String>,
}

/// The losses that the operator has accepted by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) eviction: bool,
    pub(crate) unknown: bool,
}

impl Setup {
    pub(crate) async fn ask(database: &Database) -> Result<Self, BackendError> {
        let mut commands: Vec<_> =
            ["server", "replication", "persistence", "memory"].map(|part| ("INFO", part)).to_vec();
        commands.push(("CONFIG", "GET"));
        let commands = commands.into_iter().map(|(name, argument)| {
            let mut command = cmd(name);
            command.arg(argument);
            if name == "CONFIG" {
                command.arg("appendfsync");
            }
            command
        });
        let mut answers = database.command(commands.collect()).await?;
        let config = answers.pop();
        let mut setup = Self::default();
        for answer in answers {
            let section = text(answer).unwrap_or_default();
            setup.note(&String::from_utf8_lossy(&section));
        }
        if let Some(Value::Array(pair)) = config {
            setup.appendfsync = pair.into_iter().nth(1).and_then(text).and_then(|value| String::from_utf8(value).ok());
        }
        Ok(setup)
    }

    fn note(&mut self, section: &str) {
        let parts = section.lines().filter_map(|line| line.trim().split_once(':'));
        self.info.extend(parts.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    fn get(&self, name: &str) -> &str {
        self.info.get(name).map_or("unknown", String::as_str)
    }

    fn policy(&self) -> &str {
        self.get("maxmemory_policy")
    }

    /// Returns whether the server may delete keys that have no time to live, as all of this crate have none.
    fn evicts(&self) -> bool {
        !(self.policy() == "noeviction" || self.policy().starts_with("volatile-") || self.is_policy_unknown())
    }

    fn is_policy_unknown(&self) -> bool {
        self.policy() == "unknown"
    }

    /// What the server lacks of the durability that is asked for, if something.
    fn lacks(&self, durability: Durability, accepted: Accepted) -> Option<String> {
        let appends = self.get("aof_enabled") == "1";
        match durability {
            Durability::LocalAof if !appends => Some("appendonly is off".to_owned()),
            Durability::LocalAof => match self.appendfsync.as_deref() {
                Some("always") => None,
                Some(other) => Some(format!("appendfsync is {other}, and not always")),
                None if accepted.unknown => None,
                None => Some("appendfsync is unknown: the user may not call CONFIG GET".to_owned()),
            },
            Durability::Replicas { fsync: true, .. } if !appends => Some("appendonly is off".to_owned()),
            Durability::Memory | Durability::Replicas { .. } => None,
        }
    }

    /// Returns why new keys are refused, if they are.
    pub(crate) fn limit(&self, durability: Durability, accepted: Accepted) -> Option<Limit> {
        let bytes = |name| self.get(name).parse::<u64>().unwrap_or(0);
        let (used, most) = (bytes("used_memory"), bytes("maxmemory"));
        if self.evicts() && !accepted.eviction {
            Some(Limit::Eviction)
        } else if self.lacks(durability, accepted).is_some() {
            Some(Limit::Durability)
        } else if most > 0 && used / FULL >= most / 100 {
            Some(Limit::Memory)
        } else {
            None
        }
    }

    /// Refuses servers that can't keep what the store promises, each by its name.
    pub(crate) fn check(&self, durability: Durability, accepted: Accepted) -> Result<(), RedisError> {
        let refused = |reason: &str| Err(RedisError::Refused { reason: reason.to_owned() });
        if self.info.contains_key("dragonfly_version") {
            return refused(
                "the server is Dragonfly, which has neither WAIT nor an append-only file that can be relied on",
            );
        }
        if self.get("role") == "active-replica" {
            return refused("the server is an active replica of KeyDB: two servers take writes of the same rows");
        }
        if let Some(major) = self.get("redis_version").split('.').next().and_then(|major| major.parse::<u32>().ok())
            && major < 7
        {
            return refused("the server is older than Redis 7.0, and knows no flags of scripts");
        }
        if (self.evicts() && !accepted.eviction) || (self.is_policy_unknown() && !accepted.unknown) {
            return Err(RedisError::Evicts { policy: self.policy().to_owned() });
        }
        self.lacks(durability, accepted).map_or(Ok(()), |reason| Err(RedisError::NotDurable { reason }))
    }

    /// Says what the server is, and what it can lose.
    pub(crate) fn guarantee(&self, durability: Durability) -> Guarantee {
        let (name, version) = match self.info.get("valkey_version") {
            Some(version) => ("Valkey", version.as_str()),
            None => ("Redis", self.get("redis_version")),
        };
        let setup = format!(
            "{name} {version}, {}; durability {durability}, appendonly {}, appendfsync {}, maxmemory-policy {}, \
             {} replicas connected",
            self.get("role"),
            if self.get("aof_enabled") == "1" { "yes" } else { "no" },
            self.appendfsync.as_deref().unwrap_or("unknown"),
            self.policy(),
            self.get("connected_slaves"),
        );
        let mut loses = Vec::new();
        if self.get("role") != "master" {
            loses.push("It is a replica, and takes no writes.".to_owned());
        }
        if self.evicts() {
            let policy = self.policy();
            loses.push(format!("Any record, when the memory is full: maxmemory-policy {policy} deletes keys."));
        }
        if let Some(reason) = self.lacks(durability, Accepted::default()) {
            loses.push(format!("What is answered from now on: {reason}."));
        }
        match durability {
            Durability::Memory => loses.push(
                "What was answered last, when the server ends or another one takes over: a write is answered from memory \
                 (durability memory)."
                    .to_owned(),
            ),
            Durability::LocalAof => loses.push(
                "What was answered last, when another server takes over or this one's disk is lost: no replica is waited \
                 for (durability aof)."
                    .to_owned(),
            ),
            Durability::Replicas { count, fsync } => {
                if !fsync {
                    loses.push(
                        "What was answered last, when the primary and the replicas lose power together: replicas have it \
                         in memory when it is answered (durability without fsync)."
                            .to_owned(),
                    );
                }
                if self.get("connected_slaves").parse::<u32>().is_ok_and(|connected| connected > count) {
                    loses.push(format!(
                        "What was answered last, when a replica takes over that was not waited for: {count} are, and more \
                         are connected."
                    ));
                }
            }
        }
        Guarantee { setup, loses }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Accepted = Accepted { eviction: true, unknown: true };

    fn setup(info: &str, appendfsync: Option<&str>) -> Setup {
        let mut setup = Setup { appendfsync: appendfsync.map(str::to_owned), ..Setup::default() };
        setup.note(
            "redis_version:7.2.4\r\nrole:master\r\nmaxmemory_policy:noeviction\r\nmaxmemory:0\r\nused_memory:9\r\n",
        );
        setup.note(info);
        setup
    }

    #[test]
    fn a_server_that_may_delete_records_is_refused_unless_that_is_accepted() {
        let check = |policy: &str, accepted| {
            setup(&format!("maxmemory_policy:{policy}"), None).check(Durability::Memory, accepted)
        };
        for policy in ["noeviction", "volatile-lru", "volatile-ttl"] {
            assert!(check(policy, Accepted::default()).is_ok(), "{policy}");
        }
        assert!(
            matches!(check("allkeys-lru", Accepted::default()), Err(RedisError::Evicts { policy }) if policy == "allkeys-lru")
        );
        assert!(check("allkeys-lru", Accepted { unknown: true, ..Accepted::default() }).is_err());
        assert!(check("allkeys-lru", Accepted { eviction: true, ..Accepted::default() }).is_ok());
        assert!(check("unknown", Accepted { eviction: true, ..Accepted::default() }).is_err());
        assert!(check("unknown", Accepted { unknown: true, ..Accepted::default() }).is_ok());
        assert_eq!(
            setup("maxmemory_policy:allkeys-lfu", None).limit(Durability::Memory, Accepted::default()),
            Some(Limit::Eviction)
        );
    }

    #[test]
    fn servers_that_are_not_supported_are_refused_by_name() {
        for (info, name) in [
            ("dragonfly_version:df-v1.30", "Dragonfly"),
            ("role:active-replica", "KeyDB"),
            ("redis_version:6.2.14", "older than Redis 7.0"),
        ] {
            let refused = setup(info, Some("always")).check(Durability::Memory, ALL).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn a_durability_that_the_server_does_not_have_is_refused() {
        let check = |info, fsync, durability| setup(info, fsync).check(durability, Accepted::default());
        assert!(check("aof_enabled:1", Some("always"), Durability::LocalAof).is_ok());
        for (info, fsync) in
            [("aof_enabled:0", Some("always")), ("aof_enabled:1", Some("everysec")), ("aof_enabled:1", None)]
        {
            assert!(matches!(check(info, fsync, Durability::LocalAof), Err(RedisError::NotDurable { .. })));
            assert_eq!(setup(info, fsync).limit(Durability::LocalAof, Accepted::default()), Some(Limit::Durability));
        }
        let synced = Durability::Replicas { count: 1, fsync: true };
        assert!(check("aof_enabled:0", None, synced).is_err() && check("aof_enabled:1", None, synced).is_ok());
    }

    #[test]
    fn new_keys_are_refused_before_the_memory_is_full() {
        let limit =
            |used: u64| setup(&format!("maxmemory:10000\r\nused_memory:{used}"), None).limit(Durability::Memory, ALL);
        assert_eq!((limit(9_000), limit(9_600)), (None, Some(Limit::Memory)));
        assert_eq!(setup("maxmemory:0\r\nused_memory:9000000", None).limit(Durability::Memory, ALL), None);
    }

    #[test]
    fn each_durability_says_what_it_loses() {
        let loses = |durability| setup("connected_slaves:2", None).guarantee(durability).loses.join(" ");
        assert!(loses(Durability::Memory).contains("from memory"));
        assert!(loses(Durability::Replicas { count: 1, fsync: false }).contains("not waited for"));
        assert!(
            setup("connected_slaves:2", Some("always"))
                .guarantee(Durability::Replicas { count: 2, fsync: false })
                .loses
                .len()
                == 1
        );
    }
}
