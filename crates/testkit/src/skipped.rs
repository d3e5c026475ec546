//! Tests that can't run on this machine.

use std::io::Write as _;

/// Says loudly that something could not be shown, past the test runner's capture. With `MUST_NOT_SKIP`, as the checks
/// set it, that is a failure.
pub fn skipped(promise: &str, obstacle: &str) {
    assert!(std::env::var_os("MUST_NOT_SKIP").is_none(), "not shown: {promise}: {obstacle}");
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: not shown: {promise}: {obstacle}\n");
}
