//! Servers and load, each in a process of its own, which is this program again.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use axum::Router;
use tempfile::TempDir;
use testkit::bench::load::Round;

use crate::load::Plan;

/// The arguments that give a process its part.
pub const SERVE: &str = "--serve";
pub const LOAD: &str = "--load";

/// A server. It ends when this is dropped.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    child: Child,
    _directory: Option<TempDir>,
}

fn this() -> Command {
    Command::new(std::env::current_exe().expect("a bench knows where it is"))
}

impl Server {
    /// Starts a server with a directory of its own in `parent`.
    pub fn start(name: &'static str, parent: &Path) -> Self {
        let directory = tempfile::tempdir_in(parent).expect("it can be written to");
        let path = directory.path().to_str().expect("text").to_owned();
        let mut server = Self::over(name, &path);
        server._directory = Some(directory);
        server
    }

    /// Starts a server whose records are at `place`.
    pub fn over(name: &'static str, place: &str) -> Self {
        let mut child = this().args([SERVE, name, place]).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut said = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut said).expect("it says something");
        let address = said.trim().parse().unwrap_or_else(|_| panic!("{name} says {said:?}"));
        Self { name, address, child, _directory: None }
    }

    /// Returns the CPU time of the process so far, in µs. Its threads live as long as it does.
    pub fn cpu_time(&self) -> f64 {
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

/// Serves until the process is killed, and prints the address.
pub async fn serve(app: Router) {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    println!("{}", listener.local_addr().expect("it has one"));
    axum::serve(listener, app).await.expect("it serves");
}

/// Runs a load to its end.
pub fn load(plan: &Plan) -> Round {
    let plan = serde_json::to_string(plan).expect("a plan can be written");
    let output = this().args([LOAD, &plan]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it says what it has measured")
}
