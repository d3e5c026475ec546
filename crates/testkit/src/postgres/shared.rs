//! Servers for tests, or why there are none.

use std::sync::OnceLock;

use super::PostgresServer;
use crate::skipped;

/// A server of the test's own.
pub fn own_server(promise: &str, settings: &[&str]) -> Option<PostgresServer> {
    PostgresServer::with(settings).map_err(|obstacle| skipped(promise, &obstacle)).ok()
}

/// The server that most tests of a program share.
pub fn shared_server(promise: &str) -> Option<&'static PostgresServer> {
    static SERVER: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
    SERVER.get_or_init(PostgresServer::start).as_ref().map_err(|obstacle| skipped(promise, obstacle)).ok()
}
