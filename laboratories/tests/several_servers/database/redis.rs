//! A Redis or Valkey server, which the test looks into with scripts of its own.

use std::net::SocketAddr;

use testkit::redis::RedisServer;

use super::fault::Fault;
use super::meddler::Meddler;

/// What scripts have to look at rows, as `rows.lua` of the store has them. An inline command is one line.
const LOOK: &str = include_str!("look.lua");

/// What a later release might have made of a row: the same as in PostgreSQL, or a header of another version.
pub(super) const LATER: [(&str, &str); 5] = [
    ("version", "redis.call('SETRANGE', key, 156, 'c')"),
    ("nothing-else", "redis.call('SET', key, redis.call('GETRANGE', key, 0, 155) .. 'c')"),
    ("kind", "redis.call('SETRANGE', key, 37, '+00099')"),
    ("both", "redis.call('SETRANGE', key, 37, '+00099') redis.call('SETRANGE', key, 156, 'c')"),
    ("header", "redis.call('SETRANGE', key, 0, '2')"),
];

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
        self.each(namespace, &format!("if {is_meant} then add('one') end")).len()
    }

    pub(super) fn write_anew(&self, namespace: &str, change: &str) {
        let token = "redis.call('SETRANGE', key, 1, string.sub(redis.sha1hex(key .. now), 1, 16))";
        self.each(namespace, &format!("if row.kind ~= 6 and not row.is_later then {token} {change} end"));
    }

    pub(super) fn written_anew(&self, namespace: &str) -> Vec<String> {
        let row = "redis.sha1hex(key) .. '=' .. redis.sha1hex(redis.call('GET', key))";
        let mut rows = self.each(namespace, &format!("if row.is_later then add({row}) end"));
        rows.sort();
        rows
    }

    /// Runs this for each `row` and its `key`, and returns what it has added: texts without blanks.
    fn each(&self, namespace: &str, what: &str) -> Vec<String> {
        let script = format!(
            "local added = {{}}
             local function add(text) added[#added + 1] = text end
             for _, key in ipairs(rows(ARGV[1])) do
               local row = look(key)
               {what}
             end
             return table.concat(added, ' ')"
        );
        let answer = self.server.say(&command(&script, namespace));
        assert!(answer.starts_with('$'), "the script is not sound: {answer}");
        answer.split_whitespace().skip(1).map(str::to_owned).collect()
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
