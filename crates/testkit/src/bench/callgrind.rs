//! Instructions, counted by callgrind: a process of its own does something so often, and then more often; the
//! difference is what it costs. Setting up, and ending, fall out of it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

use super::report::{compiler, processor};

/// The number of calls: in the first count, and in the second.
const FEW: u64 = 1_000;
pub const MANY: u64 = 3_000;
/// The argument with which a bench starts itself.
pub const CHILD: &str = "--counted";
/// The largest share of an earlier count.
const MOST: f64 = 1.03;

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

/// Counts the instructions of each of these ways, and compares them with those of the file: see [`Counts::compare`].
/// In a process that was started to be counted, goes its way. `command` is the bench's.
pub fn compared(ways: &[&str], go: impl FnOnce(&str, u64), file: &Path, command: &str) -> ExitCode {
    if let Some((way, times)) = counted() {
        go(&way, times);
        return ExitCode::SUCCESS;
    }
    let one = |way: &&str| Ok::<_, NoValgrind>(((*way).to_owned(), instructions(way)?.round() as u64));
    let Ok(counts) = ways.iter().map(one).collect() else {
        skip(NO_VALGRIND);
        return ExitCode::SUCCESS;
    };
    Counts::new(compiler(), counts).compare(file, command)
}

/// The instructions of doing `what` once.
pub fn instructions(what: &str) -> Result<f64, NoValgrind> {
    Ok((count(what, MANY)? - count(what, FEW)?) as f64 / (MANY - FEW) as f64)
}

fn count(what: &str, times: u64) -> Result<u64, NoValgrind> {
    let mut command = valgrind();
    command.arg(std::env::current_exe().expect("a bench knows where it is")).args([CHILD, what, &times.to_string()]);
    collected(&mut command)
}

/// A counter, whose further arguments are a program and its arguments.
pub fn valgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    // `rep movsb` counts as one instruction a byte, and where it is used depends on the processor.
    valgrind.env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824");
    valgrind
}

/// Runs a [counter](valgrind), and returns what it has counted.
pub fn collected(valgrind: &mut Command) -> Result<u64, NoValgrind> {
    let output = match valgrind.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(NoValgrind),
        Err(error) => panic!("valgrind can't be started: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{valgrind:?} ended with {}:\n{said}", output.status);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    Ok(collected.unwrap_or_else(|| panic!("valgrind has counted nothing:\n{said}")))
}

/// The counts of a bench, and what they depend on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counts {
    /// The compiler, or the server whose instructions are counted.
    version: String,
    processor: String,
    instructions: BTreeMap<String, u64>,
}

impl Counts {
    pub fn new(version: String, instructions: BTreeMap<String, u64>) -> Self {
        Self { version, processor: processor(), instructions }
    }

    /// Compares them with those of the file, or writes the file if the argument `--save` says so. `command` is the
    /// bench's.
    ///
    /// # Panics
    /// If the file can't be read or written.
    pub fn compare(&self, file: &Path, command: &str) -> ExitCode {
        if std::env::args().any(|argument| argument == "--save") {
            let text = serde_json::to_string_pretty(self).expect("counts are JSON");
            std::fs::write(file, text + "\n").expect("it can be written");
            return ExitCode::SUCCESS;
        }
        let before = std::fs::read(file).expect("it is there");
        let before: Self = serde_json::from_slice(&before).expect("it was written by this");
        let comparable = (&before.version, &before.processor) == (&self.version, &self.processor);
        let mut worse = 0;
        for (way, count) in &self.instructions {
            let Some(old) = before.instructions.get(way) else {
                println!("{way:<22} {count:>9}, new");
                continue;
            };
            let ratio = *count as f64 / *old as f64;
            let is_worse = comparable && ratio > MOST;
            worse += usize::from(is_worse);
            println!("{way:<22} {count:>9}, before {old:>9}: {ratio:.3}{}", if is_worse { " TOO MANY" } else { "" });
        }
        if before.version != self.version {
            skip(&format!("counted before with {}: {command} -- --save", before.version));
        } else if !comparable {
            println!("SKIPPED: not compared: counted before on {}", before.processor);
        }
        if worse == 0 {
            return ExitCode::SUCCESS;
        }
        println!("{worse} ways take over 3 % more. If that is wanted: {command} -- --save");
        ExitCode::FAILURE
    }
}
