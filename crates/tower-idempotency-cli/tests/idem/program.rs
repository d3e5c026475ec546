//! The program.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::process::{finished, until};
use tokio::net::TcpStream;

/// The time after which a run of `idem` is killed.
const BOUND: Duration = Duration::from_secs(300);

/// What a run of `idem` has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The value that `--json` has written.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The last line of the output.
    pub(crate) fn last_line(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }

    /// All that was written.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The program, with nothing of this machine's environment that it looks at.
pub(crate) fn program(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_idem"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["IDEM_STORE", "PGPASSWORD", "REDISCLI_AUTH", "LD_PRELOAD"] {
        command.env_remove(name);
    }
    command.env("USER", "alice");
    command
}

/// `idem proxy` as a process that says nothing, without the choice whose a key is.
pub(crate) fn proxy(listen: SocketAddr, monitor: SocketAddr, upstream: &str, store: &str) -> Command {
    let (listen, monitor) = (listen.to_string(), monitor.to_string());
    let options = ["--listen", &listen, "--monitor", &monitor, "--upstream", upstream, "--store", store];
    let mut command = program(&["proxy"]);
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits until a process accepts connections at this address.
pub(crate) async fn accepts(address: SocketAddr) {
    until("it accepts connections", async || TcpStream::connect(address).await.is_ok()).await;
}

/// Runs a command to its end, with this standard input.
pub(crate) fn run(mut command: Command, input: &str) -> Said {
    let mut child = command.spawn().unwrap();
    // The program may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let (status, stdout, stderr) = finished(child, BOUND);
    let code = status.and_then(|status| status.code());
    Said { code: code.unwrap_or_else(|| panic!("{status:?}: {stdout}{stderr}")), stdout, stderr }
}

/// Runs `idem` with these arguments.
pub(crate) fn idem(arguments: &[&str]) -> Said {
    run(program(arguments), "")
}

/// Runs `idem` with these arguments, and returns the value that it has written, after it has ended with this code.
pub(crate) fn json(code: i32, arguments: &[&str]) -> Value {
    let said = idem(&[arguments, &["--json"]].concat());
    assert_eq!(said.code, code, "{said:?}");
    said.json()
}
