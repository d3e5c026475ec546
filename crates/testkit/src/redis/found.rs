//! Servers for tests, or why there are none.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::RedisServer;
use crate::skipped;

/// A server of the test's own.
pub fn own_server(promise: &str, settings: &[&str]) -> Option<RedisServer> {
    RedisServer::with(settings).map_err(|obstacle| skipped(promise, &obstacle)).ok()
}

/// The server that most tests of a program share.
pub fn shared_server(promise: &str) -> Option<&'static RedisServer> {
    static SERVER: OnceLock<Result<RedisServer, String>> = OnceLock::new();
    SERVER.get_or_init(|| RedisServer::with(&[])).as_ref().map_err(|obstacle| skipped(promise, obstacle)).ok()
}

/// A server of the test's own, of the first program on the path for whose server `is` holds: some releases can't do
/// what a test needs. `what` says what is missing otherwise, such as "a server that knows WAITAOF".
pub fn server_where(
    promise: &str,
    settings: &[&str],
    what: &str,
    is: impl Fn(&RedisServer) -> bool,
) -> Option<RedisServer> {
    let mut servers = programs().into_iter().filter_map(|program| RedisServer::of(program, settings).ok());
    let found = servers.find(is);
    if found.is_none() {
        skipped(promise, &format!("{what} is missing"));
    }
    found
}

/// The servers' programs, on the path.
fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places =
        std::env::split_paths(&path).flat_map(|place| ["valkey-server", "redis-server"].map(|name| place.join(name)));
    places.filter(|program| program.is_file()).collect()
}

/// The first of them.
pub(super) fn program() -> Result<PathBuf, String> {
    programs().into_iter().next().ok_or_else(|| "the program of a Redis or Valkey server is missing".to_owned())
}
