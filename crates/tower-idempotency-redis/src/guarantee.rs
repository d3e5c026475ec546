//! How the server is set up, what it can lose so, and what the store must not take.

use redis::{InfoDict, Pipeline, RedisResult, Value, from_redis_value, pipe};
use tower_idempotency_shared::Guarantee;

use super::durability::Durability::{self, LocalAof, Memory, Replicas};
use super::error::{MAXMEMORY, NotConnected, Opened, RedisError, unsupported};

/// The share of the memory from which on new keys are refused, in hundredths.
const FULL: u64 = 95;

/// What a Valkey before 9.1 may lose. Which other releases, and which of Redis, mend the fault is not known here.
const USE_AFTER_FREE: &str =
    "Any record, if this release has the use after free in scripts that Valkey 9.1.0 mends: CVE-2026-23631.";

/// The settings of the server that count, by `INFO` and, where the user may ask, `CONFIG GET`.
pub(crate) struct Setup {
    info: InfoDict,
    /// `true` if it was seen without an append-only file, and has not had a whole one since.
    pub(crate) was_off: bool,
}

/// The losses that the operator has accepted by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) eviction: bool,
    pub(crate) unknown: bool,
}

impl Setup {
    /// The commands whose answers are [read](Self::read).
    pub(crate) fn commands() -> Pipeline {
        let settings = ["GET", "appendfsync", "no-appendfsync-on-rewrite"];
        pipe().cmd("INFO").cmd("CONFIG").arg(&settings).to_owned()
    }

    pub(crate) fn read(answers: Vec<Value>) -> RedisResult<Self> {
        let mut answers = answers.into_iter();
        let mut lines: String = from_redis_value(answers.next().unwrap_or(Value::Nil).extract_error()?)?;
        let config = answers.next().and_then(|config| from_redis_value::<Vec<(String, String)>>(config).ok());
        lines.extend(config.into_iter().flatten().map(|(name, value)| format!("\n{name}:{value}")));
        Ok(Self { info: InfoDict::new(&lines), was_off: false })
    }

    pub(crate) fn get(&self, name: &str) -> String {
        self.info.get(name).unwrap_or_else(|| "unknown".to_owned())
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == value
    }

    /// Returns whether the server may delete keys without a time to live: all of this crate's.
    fn evicts(&self) -> bool {
        let policy = self.get("maxmemory_policy");
        !(policy == "noeviction" || policy.starts_with("volatile-"))
    }

    /// Returns whether the version of this name is an older one. `redis_version` of Valkey is the one of Redis with
    /// which it is compatible.
    fn is_before(&self, name: &str, least: (u32, u32)) -> bool {
        let version = self.get(name);
        let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
        numbers.next().zip(numbers.next()).is_some_and(|version| version < least)
    }

    /// What the server lacks of the durability that is asked for, if something.
    fn lacks(&self, durability: Durability, accepted: Accepted) -> Option<String> {
        let fault = match durability {
            Memory | Replicas { fsync: false, .. } => return None,
            Replicas { .. } if self.is_before("redis_version", (7, 2)) => {
                "it is older than Redis 7.2, and knows no WAITAOF"
            }
            _ if !self.is("aof_enabled", "1") => "appendonly is off",
            _ if self.makes_file() => {
                "its append-only file is being made, or could not be: no start reads it before that"
            }
            _ if self.is("appendfsync", "unknown") && accepted.unknown => return None,
            _ if self.is("appendfsync", "unknown") => "appendfsync is unknown: the user may not call CONFIG GET",
            // Otherwise WAITAOF would wait for a sync that comes each second.
            _ if !self.is("appendfsync", "always") => {
                return Some(format!("appendfsync is {}, and not always", self.get("appendfsync")));
            }
            _ if self.is("no-appendfsync-on-rewrite", "yes") => {
                "no-appendfsync-on-rewrite is yes: nothing is synced while the file is written anew"
            }
            _ => return None,
        };
        Some(fault.to_owned())
    }

    /// Returns whether the append-only file may be one that is being made, or could not be: no start reads it before it
    /// is complete. Of a server that was a replica, nothing says whether it is made anew after a full sync; of one that
    /// has never rewritten its file, nothing says whether there is one.
    pub(crate) fn makes_file(&self) -> bool {
        let was_replica = !self.is("second_repl_offset", "-1") && !self.is("second_repl_offset", "unknown");
        // A rewrite of a file that is there is not scheduled again at once.
        let has_failed = self.is("aof_rewrite_scheduled", "1") && self.is("aof_last_bgrewrite_status", "err");
        has_failed || self.rewrites() && (self.is("aof_base_size", "0") || was_replica || self.was_off)
    }

    /// Returns whether the append-only file is written anew, or was not at the last try.
    pub(crate) fn rewrites(&self) -> bool {
        let is = |name| self.is(name, "1");
        is("aof_rewrite_in_progress") || is("aof_rewrite_scheduled") || self.is("aof_last_bgrewrite_status", "err")
    }

    /// Returns why the store would not keep what it promises, if it would not, and the limit for new keys then, as
    /// `Backend::full` names it.
    pub(crate) fn fault(&self, durability: Durability, accepted: Accepted) -> Option<(&'static str, RedisError)> {
        let policy = self.get("maxmemory_policy");
        let is_accepted = if policy == "unknown" { accepted.unknown } else { accepted.eviction };
        if self.evicts() && !is_accepted {
            return Some(("maxmemory-policy", RedisError::Evicts { policy }));
        }
        let lacks = self.lacks(durability, accepted);
        lacks.map(|lacks| {
            ("durability", RedisError::NotDurable { reason: format!("{lacks} (durability={durability})") })
        })
    }

    /// Returns why new keys are refused, if they are.
    pub(crate) fn limit(&self, durability: Durability, accepted: Accepted) -> Option<&'static str> {
        let bytes = |name| self.info.get::<u64>(name).unwrap_or(0);
        let (used, most) = (bytes("used_memory"), bytes("maxmemory"));
        // A server that deletes others' keys is always full, and takes new ones all the same.
        let makes_room = !["noeviction", "unknown"].contains(&self.get("maxmemory_policy").as_str());
        let is_full = !makes_room && most > 0 && used / FULL >= most / 100;
        self.fault(durability, accepted).map(|(limit, _)| limit).or(is_full.then_some(MAXMEMORY))
    }

    /// Refuses servers that can't keep what any store promises, each by its name, and a server that is no primary.
    pub(crate) fn check_server(&self) -> Opened<()> {
        let role = self.get("role");
        let fault = match role.as_str() {
            _ if self.info.contains_key(&"dragonfly_version") => {
                "it is Dragonfly, which has neither WAIT nor an append-only file that can be relied on"
            }
            _ if self.is("redis_mode", "sentinel") => "it is a sentinel: begin the URL with redis+sentinel",
            "active-replica" => "it is an active replica of KeyDB: two servers take writes of the same rows",
            _ if self.is_before("redis_version", (7, 0)) => "it is older than Redis 7.0, and knows no flags of scripts",
            // Meanwhile it says that it has no append-only file.
            "master" if self.is("loading", "1") => {
                return Err(NotConnected::Away("it is loading the dataset".to_owned()));
            }
            "master" => return Ok(()),
            _ => return Err(NotConnected::Away(format!("it is no primary: its role is {role}"))),
        };
        Err(unsupported(fault))
    }

    /// Says what the server is, and what it can lose. `idem doctor` judges the losses by their words: see
    /// `doctor/redis.rs` of tower-idempotency-cli.
    pub(crate) fn guarantee(&self, durability: Durability) -> Guarantee {
        let [role, policy, appendfsync, connected] =
            ["role", "maxmemory_policy", "appendfsync", "connected_slaves"].map(|name| self.get(name));
        let appendonly = if self.is("aof_enabled", "1") { "yes" } else { "no" };
        let valkey = self.info.get("valkey_version").map(|version: String| format!("Valkey {version}"));
        let name = valkey.unwrap_or_else(|| format!("Redis {}", self.get("redis_version")));
        let setup = format!(
            "{name}, {role}; durability {durability}, appendonly {appendonly}, appendfsync {appendfsync}, \
             maxmemory-policy {policy}, {connected} replicas connected"
        );
        let lacks = self.lacks(durability, Accepted::default());
        let in_memory = matches!(durability, Replicas { fsync: false, .. });
        let forgets = in_memory && self.lacks(LocalAof, Accepted::default()).is_some();
        let misses = matches!(durability, Replicas { count, .. } if connected.parse().ok() > Some(count));
        let last = |why| format!("What was answered last, when {why} (durability {durability}).");
        let losses = [
            (role != "master", "It is a replica, and takes no writes.".to_owned()),
            (self.is_before("valkey_version", (9, 1)), USE_AFTER_FREE.to_owned()),
            (self.evicts(), format!("Any record, when the memory is full: maxmemory-policy is {policy}.")),
            (lacks.is_some(), format!("What is answered from now on: {}.", lacks.unwrap_or_default())),
            (durability == Memory, last("the server ends or another one takes over: it is in memory alone")),
            (durability == LocalAof, last("another server takes over or this one's disk is lost")),
            (in_memory, last("the primary and the replicas lose power together: they have it in memory")),
            (forgets, last("the primary is started again before a replica takes over: then its disk counts")),
            (misses, last("a replica takes over that was not waited for: more are connected")),
        ];
        let loses = losses.into_iter().filter_map(|(is_so, loss)| is_so.then_some(loss)).collect();
        Guarantee { setup, loses }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Accepted = Accepted { eviction: true, unknown: true };

    fn setup(info: &str, appendfsync: Option<&str>) -> Setup {
        let usual = "redis_version:7.2.4\r\nrole:master\r\nmaxmemory_policy:noeviction\r\nmaxmemory:0\r\nused_memory:9";
        // The last of two lines counts.
        let info = Value::BulkString(format!("{usual}\r\n{info}").into());
        let config = appendfsync.map(|value| ["appendfsync", value].map(|text| Value::BulkString(text.into())).into());
        Setup::read([info].into_iter().chain(config.map(Value::Array)).collect()).unwrap()
    }

    #[test]
    fn a_server_that_may_delete_records_is_refused_unless_that_is_accepted() {
        let check = |policy: &str, accepted| {
            setup(&format!("maxmemory_policy:{policy}"), None).fault(Durability::Memory, accepted)
        };
        for policy in ["noeviction", "volatile-lru", "volatile-ttl"] {
            assert!(check(policy, Accepted::default()).is_none(), "{policy}");
        }
        let refused = check("allkeys-lru", Accepted::default());
        assert!(matches!(refused, Some((_, RedisError::Evicts { policy })) if policy == "allkeys-lru"));
        assert!(check("allkeys-lru", Accepted { unknown: true, ..Accepted::default() }).is_some());
        assert!(check("allkeys-lru", Accepted { eviction: true, ..Accepted::default() }).is_none());
        assert!(check("unknown", Accepted { eviction: true, ..Accepted::default() }).is_some());
        assert!(check("unknown", Accepted { unknown: true, ..Accepted::default() }).is_none());
        assert_eq!(
            setup("maxmemory_policy:allkeys-lfu", None).limit(Durability::Memory, Accepted::default()),
            Some("maxmemory-policy")
        );
    }

    #[test]
    fn servers_that_are_not_supported_are_refused_by_name() {
        for (info, name) in [
            ("dragonfly_version:df-v1.30", "Dragonfly"),
            ("role:active-replica", "KeyDB"),
            ("redis_version:6.2.14", "older than Redis 7.0"),
            ("redis_mode:sentinel", "redis+sentinel"),
        ] {
            let refused = setup(info, Some("always")).check_server().unwrap_err();
            let NotConnected::ForGood(RedisError::Unsupported { reason }) = refused else { panic!("{refused}") };
            assert!(reason.contains(name), "{reason}");
        }
        assert!(setup("", None).check_server().is_ok());
        // It may be promoted.
        let loading = setup("loading:1", None).check_server().unwrap_err();
        assert!(matches!(&loading, NotConnected::Away(reason) if reason.contains("loading")), "{loading}");
        let replica = setup("role:slave", None).check_server().unwrap_err();
        assert!(matches!(&replica, NotConnected::Away(reason) if reason.contains("slave")), "{replica}");
    }

    #[test]
    fn a_durability_that_the_server_does_not_have_is_refused() {
        let check = |info, fsync, durability| setup(info, fsync).fault(durability, Accepted::default());
        for durability in [Durability::LocalAof, Durability::Replicas { count: 1, fsync: true }] {
            assert!(check("aof_enabled:1", Some("always"), durability).is_none());
            for (info, fsync) in
                [("aof_enabled:0", Some("always")), ("aof_enabled:1", Some("everysec")), ("aof_enabled:1", None)]
            {
                let refused = check(info, fsync, durability);
                assert!(matches!(refused, Some((_, RedisError::NotDurable { .. }))), "{refused:?}");
                assert_eq!(setup(info, fsync).limit(durability, Accepted::default()), Some("durability"));
            }
            let making = "aof_enabled:1\r\naof_rewrite_in_progress:1\r\naof_base_size:";
            assert_eq!(setup(&format!("{making}0"), Some("always")).limit(durability, ALL), Some("durability"));
            let anew = setup(&format!("{making}9"), Some("always"));
            assert_eq!(anew.limit(durability, ALL), None);
            assert_eq!(Setup { was_off: true, ..anew }.limit(durability, ALL), Some("durability"));
            let whole = setup("aof_enabled:1\r\naof_base_size:9", Some("always"));
            assert_eq!(Setup { was_off: true, ..whole }.limit(durability, ALL), None);
            for info in [
                // It was a replica, and has the file of before.
                &format!("{making}9\r\nsecond_repl_offset:4414"),
                // It was not made, or will be.
                "aof_enabled:1\r\naof_base_size:0\r\naof_last_bgrewrite_status:err",
                "aof_enabled:1\r\naof_base_size:0\r\naof_rewrite_scheduled:1",
                // It was off, and the disk is full.
                "aof_enabled:1\r\naof_base_size:9\r\naof_rewrite_scheduled:1\r\naof_last_bgrewrite_status:err",
            ] {
                assert_eq!(setup(info, Some("always")).limit(durability, ALL), Some("durability"), "{info}");
            }
            let failed = "aof_enabled:1\r\naof_base_size:9\r\naof_last_bgrewrite_status:err\r\nsecond_repl_offset:-1";
            assert_eq!(setup(failed, Some("always")).limit(durability, ALL), None, "the file is there");
            let rewriting = setup("aof_enabled:1\r\nno-appendfsync-on-rewrite:yes", Some("always"));
            assert_eq!(rewriting.limit(durability, Accepted::default()), Some("durability"));
        }
    }

    #[test]
    fn new_keys_are_refused_before_the_memory_is_full() {
        let limit =
            |used: u64| setup(&format!("maxmemory:10000\r\nused_memory:{used}"), None).limit(Durability::Memory, ALL);
        assert_eq!((limit(9_000), limit(9_600)), (None, Some(MAXMEMORY)));
        assert_eq!(setup("maxmemory:0\r\nused_memory:9000000", None).limit(Durability::Memory, ALL), None);
        for policy in ["volatile-lru", "allkeys-lru"] {
            let warm = setup(&format!("maxmemory:10\r\nused_memory:10\r\nmaxmemory_policy:{policy}"), None);
            assert_eq!(warm.limit(Durability::Memory, ALL), None, "{policy}");
        }
    }

    #[test]
    fn a_valkey_that_may_have_a_use_after_free_says_so() {
        let says = |info: &str| {
            let loses = setup(info, None).guarantee(Durability::Memory).loses;
            loses.iter().any(|loses| loses.contains("CVE-2026-23631"))
        };
        for version in ["7.2.11", "8.1.4", "9.0.3"] {
            assert!(says(&format!("valkey_version:{version}")), "{version}");
        }
        for info in ["valkey_version:9.1.0", "valkey_version:9.1.2", "valkey_version:10.0.0", "redis_version:7.0.15"] {
            assert!(!says(info), "{info}");
        }
    }

    #[test]
    fn each_durability_says_what_it_loses() {
        let loses = |durability| setup("connected_slaves:2", None).guarantee(durability).loses.join(" ");
        assert!(loses(Durability::Memory).contains("in memory alone"));
        assert!(loses(Durability::Replicas { count: 1, fsync: false }).contains("not waited for"));
        let losses = |info: &str| {
            let setup = setup(&format!("connected_slaves:2\r\n{info}"), Some("always"));
            setup.guarantee(Durability::Replicas { count: 2, fsync: false }).loses
        };
        // What a primary that is started again has on its disk, its replicas take over.
        assert_eq!((losses("aof_enabled:1").len(), losses("aof_enabled:0").len()), (1, 2));
        assert!(losses("aof_enabled:0")[1].contains("then its disk counts"));
    }
}
