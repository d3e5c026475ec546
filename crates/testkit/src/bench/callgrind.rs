//! Instructions, counted by callgrind: a process of its own does something so often, and then more often; the
//! difference is what it costs. Setting up, and ending, fall out of it.

use std::io::ErrorKind;
use std::process::Command;

/// The number of calls: in the first count, and in the second.
const FEW: u64 = 1_000;
pub const MANY: u64 = 3_000;
/// The argument with which a bench starts itself.
const CHILD: &str = "--counted";

/// The counter is not there.
#[derive(Debug)]
pub struct NoValgrind;

/// Says that something was not done. With `MUST_NOT_SKIP`, as the checks set it, that is a failure.
///
/// # Panics
/// If it must not be skipped.
pub fn skip(why: &str) {
    assert!(std::env::var_os("MUST_NOT_SKIP").is_none(), "{why}");
    println!("SKIPPED: {why}");
}

/// The task of this process and its number of repetitions, if it was started to be counted.
pub fn counted() -> Option<(String, u64)> {
    let mut arguments = std::env::args().skip_while(|argument| argument != CHILD).skip(1);
    Some((arguments.next()?, arguments.next()?.parse().ok()?))
}

pub const NO_VALGRIND: &str = "instructions are counted by valgrind, which is not installed";

/// The instructions of doing `what` once.
pub fn instructions(what: &str) -> Result<f64, NoValgrind> {
    Ok((count(what, MANY)? - count(what, FEW)?) as f64 / (MANY - FEW) as f64)
}

fn count(what: &str, times: u64) -> Result<u64, NoValgrind> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    // `rep movsb` counts as one instruction a byte, and where it is used depends on the processor.
    valgrind.env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824");
    valgrind.arg(std::env::current_exe().expect("a bench knows where it is")).args([CHILD, what, &times.to_string()]);
    let output = match valgrind.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(NoValgrind),
        Err(error) => panic!("valgrind can't be started: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} ended with {}:\n{said}", output.status);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    Ok(collected.unwrap_or_else(|| panic!("valgrind has counted nothing:\n{said}")))
}
