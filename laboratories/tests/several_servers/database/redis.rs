//! A Redis or Valkey server, which the test looks into with scripts of its own.

use std::net::SocketAddr;

use testkit::redis::RedisServer;

use super::fault::Fault;
use super::meddler::Meddler;

/// What scripts have to look at rows, as `rows.lua` of the store has them. An inline command is one line.
const LOOK: &str = include_str!("look.lua");

/// Returns the command that runs a script, after what scripts have to look at rows.
pub(super) fn command(script: &str, argument: &str) -> String {
    let script = format!("{LOOK}{script}");
    assert!(!script.contains(['"', '\\']), "it is within quotation marks");
    format!("EVAL \"{}\" 0 {argument}", script.replace('\n', " "))
}

/// A server, and what changes its rows, if it is broken.
pub(crate) struct Redis {
    // It ends before its server.
    _meddler: Option<Meddler>,
    pub(super) server: RedisServer,
    durability: &'static str,
}

impl Redis {
    /// Starts a server that loses nothing when it is killed, unless that is the fault. An error says what is missing.
    pub(super) fn open(fault: Option<Fault>, has_clock: bool) -> Result<Self, String> {
        let is_durable = fault != Some(Fault::AnsweredEarly);
        let durability = if is_durable { "aof" } else { "memory" };
        let settings: &[&str] = if is_durable { &["appendonly yes", "appendfsync always"] } else { &[] };
        let server = if has_clock { RedisServer::with_a_clock(settings)? } else { RedisServer::with(settings)? };
        let meddler = fault.and_then(|fault| Meddler::start(server.address(), fault));
        Ok(Self { _meddler: meddler, server, durability })
    }

    /// Starts a server whose memory, or that of its replica, is all that a write has to reach.
    pub(super) fn primary(is_synchronous: bool) -> Result<Self, String> {
        let durability = if is_synchronous { "replicas:1" } else { "memory" };
        Ok(Self { _meddler: None, server: RedisServer::with(&[])?, durability })
    }

    pub(super) fn standby(&self, address: SocketAddr) -> Self {
        let server = RedisServer::replica_of(address, &[]).expect("the program is there");
        Self { _meddler: None, server, durability: self.durability }
    }

    pub(super) fn url_at(&self, address: SocketAddr) -> String {
        format!("redis://{address}?durability={}", self.durability)
    }

    /// Returns the number of rows of which an expression of Lua is true.
    pub(super) fn count(&self, namespace: &str, is_meant: &str) -> usize {
        let script = format!(
            "local count = 0
             for _, key in ipairs(rows(ARGV[1])) do
               local row = look(key)
               if {is_meant} then count = count + 1 end
             end
             return count"
        );
        let answer = self.server.say(&command(&script, namespace));
        let count = answer.trim().strip_prefix(':').and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("the script is sound: {answer}"))
    }

    pub(super) fn behind(&self) -> i64 {
        let replication = self.server.say("INFO replication");
        let number = |after: &str| {
            let (_, rest) = replication.split_once(after)?;
            rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<i64>().ok()
        };
        // A replica whose link was lost is not listed.
        number("master_repl_offset:").unwrap_or(0) - number(",offset=").unwrap_or(0)
    }

    pub(super) fn promote(&self) {
        let answer = self.server.say("REPLICAOF NO ONE");
        assert!(answer.starts_with("+OK"), "{answer}");
    }

    /// It takes a whole copy: what it had is gone with its process.
    pub(super) fn become_standby_of(&mut self, primary: SocketAddr) {
        self.server.start_again();
        self.server.follow(primary);
    }
}
