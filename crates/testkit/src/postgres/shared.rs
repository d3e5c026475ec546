//! Servers for tests, or why there are none.

use std::sync::OnceLock;

use super::Server;
use crate::skipped;

/// A server of the test's own.
pub fn own_server(promise: &str, settings: &[&str]) -> Option<Server> {
    Server::with(settings).map_err(|obstacle| skipped(promise, &obstacle)).ok()
}

/// The server that most tests of a program share.
pub fn shared_server(promise: &str) -> Option<&'static Server> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref().map_err(|obstacle| skipped(promise, obstacle)).ok()
}
