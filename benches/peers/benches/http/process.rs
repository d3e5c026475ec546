//! Servers and load, each in a process of its own, which is this program again.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use testkit::bench::load::Round;

use crate::load::Plan;

/// The arguments that give a process its part.
pub(crate) const SERVE: &str = "--serve";
pub(crate) const LOAD: &str = "--load";

pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

fn this() -> Command {
    Command::new(std::env::current_exe().expect("a bench knows where it is"))
}

impl Server {
    pub(crate) fn start(name: &'static str) -> Self {
        // The directory is on the disk of the target directory: temporary files may not be on a disk.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("it can be written to");
        let mut child =
            this().args([SERVE, name]).arg(directory.path()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut said = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut said).expect("it says something");
        let address = said.trim().parse().unwrap_or_else(|_| panic!("{name} says {said:?}"));
        Self { name, address, child, _directory: directory }
    }
}

impl Server {
    /// Returns the CPU time of the process so far, in µs. Its threads live as long as it does.
    pub(crate) fn cpu_time(&self) -> f64 {
        testkit::bench::cpu::cpu_time(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a load to its end.
pub(crate) fn load(plan: &Plan) -> Round {
    let plan = serde_json::to_string(plan).expect("a plan can be written");
    let output = this().args([LOAD, &plan]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it says what it has measured")
}
