//! The control of a laboratory: the same test, in a process in which a protection is broken. The test must report it.
//!
//! A control that breaks the disk or the clock uses the crate as it is published, and is a test of the laboratory's own
//! program. A control that breaks the crate inside needs a copy with the switch for it: `.ci/controls` compiles these
//! with the cfg `idempotency_laboratory`, and there the laboratory itself runs only as the child of its controls.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::finished;

/// The switch of `laboratories/broken.patch`, which an ordinary program does not have.
const SWITCH: &str = "TOWER_IDEMPOTENCY_BREAK";
/// After how long the child is killed.
const BOUND: Duration = Duration::from_secs(240);

/// Returns whether this process is a control: a protection is broken in it.
pub fn is_control() -> bool {
    std::env::var_os(SWITCH).is_some()
}

/// Runs `test`, a test of this program, in a child process with `protection` broken inside the crate, and gives the
/// number of violations, as [`violations_with`] does.
pub fn violations_when_broken(test: &str, protection: &str, extra_env: &[(&str, &str)]) -> usize {
    violations_with(test, &[extra_env, &[(SWITCH, protection)]].concat())
}

/// Runs `test`, a test of this program, in a child process whose environment has `broken` too, and gives the number of
/// violations that its figure, the last line of that kind, reports.
///
/// # Panics
///
/// If the child reports no figure, does not end in time, or succeeds although it reports violations.
pub fn violations_with(test: &str, broken: &[(&str, &str)]) -> usize {
    let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
    // `--include-ignored`: the laboratory is ignored in builds where only its controls run it.
    command.args(["--include-ignored", "--exact", test, "--nocapture", "--test-threads=1"]);
    // A long form passes its counts on, unless `broken` says otherwise.
    command.env_remove("RUST_BACKTRACE").envs(broken.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("this program can be started again");
    let (ended, stdout, stderr) = finished(child, BOUND);
    let status = ended.unwrap_or_else(|| panic!("{test} with {broken:?} did not end:\n{stdout}\n{stderr}"));
    let Some(violations) = figure(&stdout) else {
        panic!("{test} with {broken:?} reported no figure: {status}\n{stdout}\n{stderr}");
    };
    let said = format!("{test} with {broken:?} reported {violations} violations, and ended with {status}");
    assert_eq!(status.success(), violations == 0, "{said}:\n{stdout}\n{stderr}");
    violations
}

/// Says what is wrong, and what a laboratory has come to: the line that its control reads. Fails if anything is wrong.
pub fn report(figures: &str, violations: &[String]) {
    violations.iter().for_each(|violation| println!("{violation}"));
    println!("{figures}, violations {}", violations.len());
    assert_eq!(violations.len(), 0);
}

/// The N of the last line that ends in `violations N`.
fn figure(output: &str) -> Option<usize> {
    let number = |line: &str| line.rsplit_once("violations ").and_then(|(_, number)| number.trim().parse().ok());
    output.lines().rev().find_map(number)
}
