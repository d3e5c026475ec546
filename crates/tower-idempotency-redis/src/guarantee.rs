//! How the server is set up, what it can lose so, and what the store must not take.

use std::collections::HashMap;

use redis::{Value, cmd};
use tower_idempotency_shared::{BackendError, Guarantee};

use super::connection::connect::evicts;
use super::database::{Database, POLICY};
use super::durability::Durability;
use super::error::{MAXMEMORY, RedisError};
use super::wire::row::text;

/// The share of the memory from which on new keys are refused, in hundredths.
const FULL: u64 = 95;
/// The limit of a server that does not keep what is asked for, as `Backend::full` names it.
const DURABILITY: &str = "durability";

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
        let info = ["server", "replication", "persistence", "memory"].map(|section| ("INFO", vec![section]));
        let commands = info.into_iter().chain([("CONFIG", vec!["GET", "appendfsync"])]).map(|(name, arguments)| {
            let mut command = cmd(name);
            command.arg(arguments);
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

    fn is_appending(&self) -> bool {
        self.get("aof_enabled") == "1"
    }

    /// The major and the minor version of Redis, or of the Redis that Valkey is compatible with.
    fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.get("redis_version").split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// What the server lacks of the durability that is asked for, if something.
    fn lacks(&self, durability: Durability, accepted: Accepted) -> Option<String> {
        let fsync = match durability {
            Durability::LocalAof => self.appendfsync.as_deref(),
            Durability::Replicas { fsync: true, .. } if self.version().is_some_and(|version| version < (7, 2)) => {
                return Some("it is older than Redis 7.2, and knows no WAITAOF".to_owned());
            }
            Durability::Replicas { fsync: true, .. } => Some("always"),
            Durability::Memory | Durability::Replicas { .. } => return None,
        };
        match fsync {
            _ if !self.is_appending() => Some("appendonly is off".to_owned()),
            Some("always") => None,
            Some(other) => Some(format!("appendfsync is {other}, and not always")),
            None if accepted.unknown => None,
            None => Some("appendfsync is unknown: the user may not call CONFIG GET".to_owned()),
        }
    }

    /// Returns why the store would not keep what it promises, if it would not.
    fn fault(&self, durability: Durability, accepted: Accepted) -> Option<(&'static str, RedisError)> {
        let policy = self.policy().to_owned();
        let is_accepted = if policy == "unknown" { accepted.unknown } else { accepted.eviction };
        if evicts(self.policy()) && !is_accepted {
            return Some((POLICY, RedisError::Evicts { policy }));
        }
        self.lacks(durability, accepted).map(|reason| (DURABILITY, RedisError::NotDurable { reason }))
    }

    /// Returns why new keys are refused, if they are.
    pub(crate) fn limit(&self, durability: Durability, accepted: Accepted) -> Option<&'static str> {
        let bytes = |name| self.get(name).parse::<u64>().unwrap_or(0);
        let (used, most) = (bytes("used_memory"), bytes("maxmemory"));
        let is_full = most > 0 && used / FULL >= most / 100;
        self.fault(durability, accepted).map(|(limit, _)| limit).or(is_full.then_some(MAXMEMORY))
    }

    /// Refuses servers that can't keep what the store promises, each by its name.
    pub(crate) fn check(&self, durability: Durability, accepted: Accepted) -> Result<(), RedisError> {
        let refused = |reason: &str| Err(RedisError::Refused { reason: reason.to_owned() });
        if self.info.contains_key("dragonfly_version") {
            return refused("it is Dragonfly, which has neither WAIT nor an append-only file that can be relied on");
        }
        if self.get("role") == "active-replica" {
            return refused("it is an active replica of KeyDB: two servers take writes of the same rows");
        }
        if self.version().is_some_and(|version| version < (7, 0)) {
            return refused("it is older than Redis 7.0, and knows no flags of scripts");
        }
        self.fault(durability, accepted).map_or(Ok(()), |(_, error)| Err(error))
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
            if self.is_appending() { "yes" } else { "no" },
            self.appendfsync.as_deref().unwrap_or("unknown"),
            self.policy(),
            self.get("connected_slaves"),
        );
        let mut loses = Vec::new();
        if self.get("role") != "master" {
            loses.push("It is a replica, and takes no writes.".to_owned());
        }
        if evicts(self.policy()) {
            loses.push(format!("Any record, when the memory is full: maxmemory-policy is {}.", self.policy()));
        }
        if let Some(reason) = self.lacks(durability, Accepted::default()) {
            loses.push(format!("What is answered from now on: {reason}."));
        }
        let last = |why: &str| format!("What was answered last, when {why} (durability {durability}).");
        match durability {
            Durability::Memory => loses.push(last("the server ends or another one takes over: it is in memory alone")),
            Durability::LocalAof => loses.push(last("another server takes over or this one's disk is lost")),
            Durability::Replicas { count, fsync } => {
                if !fsync {
                    loses.push(last("the primary and the replicas lose power together: they have it in memory"));
                }
                if self.get("connected_slaves").parse::<u32>().is_ok_and(|connected| connected > count) {
                    loses.push(last("a replica takes over that was not waited for: more are connected"));
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
            Some(POLICY)
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
            assert_eq!(setup(info, fsync).limit(Durability::LocalAof, Accepted::default()), Some(DURABILITY));
        }
        let synced = Durability::Replicas { count: 1, fsync: true };
        assert!(check("aof_enabled:0", None, synced).is_err() && check("aof_enabled:1", None, synced).is_ok());
    }

    #[test]
    fn new_keys_are_refused_before_the_memory_is_full() {
        let limit =
            |used: u64| setup(&format!("maxmemory:10000\r\nused_memory:{used}"), None).limit(Durability::Memory, ALL);
        assert_eq!((limit(9_000), limit(9_600)), (None, Some(MAXMEMORY)));
        assert_eq!(setup("maxmemory:0\r\nused_memory:9000000", None).limit(Durability::Memory, ALL), None);
    }

    #[test]
    fn each_durability_says_what_it_loses() {
        let loses = |durability| setup("connected_slaves:2", None).guarantee(durability).loses.join(" ");
        assert!(loses(Durability::Memory).contains("in memory alone"));
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
