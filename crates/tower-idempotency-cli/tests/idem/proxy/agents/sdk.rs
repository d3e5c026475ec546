//! The official SDKs, and the programs that use them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::process::Process;
use testkit::skipped;

/// An SDK as a client or a server: what runs its programs, and the variable with the directory of its package, as
/// `.ci/run` sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sdk {
    Python,
    TypeScript,
    /// The older package, as a client alone. It knows sessions alone.
    OlderTypeScript,
}

/// What a server answers with, and whether it has sessions: they belong to the revisions before 2026-07-28.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) body: &'static str,
    pub(super) sessions: &'static str,
}

impl Sdk {
    /// Returns the directory of its package. Returns `None`, after it has said that this promise is not shown, if it is
    /// missing.
    pub(super) fn package(self, promise: &str) -> Option<OsString> {
        let variable = if self == Self::Python { "MCP_PYTHON" } else { "MCP_NODE" };
        let package = std::env::var_os(variable);
        if package.is_none() {
            skipped(promise, &format!("{variable} names no directory"));
        }
        package
    }

    fn program(self, name: &str, package: &OsString) -> Command {
        let (interpreter, ending) = if self == Self::Python { ("python3", "py") } else { ("node", "mjs") };
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/idem/proxy/agents");
        let mut command = Command::new(interpreter);
        command.arg(directory.join(format!("{name}.{ending}"))).env("PYTHONPATH", package).env("MCP_NODE", package);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Starts a server whose tool pays: each payment is a line of the ledger.
    pub(super) fn server(self, package: &OsString, at: SocketAddr, ledger: &Path, shape: Shape) -> Process {
        let mut command = self.program("server", package);
        command.arg(at.to_string()).arg(ledger).args([shape.body, shape.sessions]);
        Process(command.spawn().unwrap())
    }

    /// Starts an agent that pays so often.
    pub(super) fn agent(self, package: &OsString, server: SocketAddr, payments: usize, shape: Shape) -> Process {
        let mut command = self.program("client", package);
        let (url, payments) = (format!("http://{server}/mcp"), payments.to_string());
        command.args([&url, "payment", &payments, shape.body, shape.sessions]);
        if self == Self::OlderTypeScript {
            command.arg("@modelcontextprotocol/sdk");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Process(command.spawn().unwrap())
    }
}
