//! Servers, and what they say of themselves.

use testkit::redis::RedisServer;

/// A server of a part's own.
pub(crate) fn started() -> RedisServer {
    RedisServer::with(&[]).expect("another one has started")
}

/// Returns the CPU time of the server so far, in µs.
pub(crate) fn cpu_time(server: &RedisServer) -> f64 {
    let cpu = server.say("INFO cpu");
    (number(&cpu, "used_cpu_user:") + number(&cpu, "used_cpu_sys:")) * 1e6
}

/// Returns the bytes that the server has allocated.
pub(crate) fn used_memory(server: &RedisServer) -> f64 {
    number(&server.say("INFO memory"), "used_memory:")
}

/// Returns the calls of scripts so far. What scripts call is not among them.
pub(crate) fn script_calls(server: &RedisServer) -> u64 {
    let commands = server.say("INFO commandstats");
    (number(&commands, "cmdstat_evalsha:calls=") + number(&commands, "cmdstat_eval:calls=")) as u64
}

/// Returns the name and the version of the server.
pub(crate) fn version(server: &RedisServer) -> String {
    let info = server.say("INFO server");
    let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let valkey = line("valkey_version:").map(|version| format!("Valkey {version}"));
    valkey.unwrap_or_else(|| format!("Redis {}", line("redis_version:").unwrap_or_default()))
}

/// Returns the number after these words, at the beginning of a line. A command that was never called has no line.
fn number(info: &str, words: &str) -> f64 {
    let Some(rest) = info.lines().find_map(|line| line.strip_prefix(words)) else { return 0.0 };
    let number = rest.split(',').next().unwrap_or_default();
    number.trim().parse().expect("a number")
}
