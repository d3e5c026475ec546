//! What the tests share.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test program uses a part of it")]

use std::io::Write as _;

pub mod asked;
pub mod child;
pub mod control;
#[cfg(target_os = "linux")]
pub mod disk;
pub mod history;
pub mod lab;
pub mod listed;
pub mod log;
pub mod process;
pub mod proxy;
pub mod steps;

/// Says loudly that something could not be shown, past the test runner's capture. With `MUST_NOT_SKIP`, as the checks
/// set it, that is a failure.
pub fn skipped(promise: &str, obstacle: &str) {
    assert!(std::env::var_os("MUST_NOT_SKIP").is_none(), "not shown: {promise}: {obstacle}");
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: not shown: {promise}: {obstacle}\n");
}
