//! A service in another language, and the proxy in front of it, as processes that are killed and started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::dice::free_address;
use testkit::process::{Process, until};
use tokio::net::TcpStream;

use crate::program::program;

/// The program of a service, and the language that it is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Language {
    Python,
    Node,
}

impl Language {
    fn command(self) -> (&'static str, &'static str) {
        match self {
            Self::Python => ("python3", "service.py"),
            Self::Node => ("node", "service.mjs"),
        }
    }

    /// Returns whether its interpreter is on this machine.
    pub(super) fn is_there(self) -> bool {
        let version = Command::new(self.command().0).arg("--version").stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }
}

/// Where they are, and what they write.
pub(super) struct Parts {
    language: Language,
    pub(super) service: SocketAddr,
    pub(super) proxy: SocketAddr,
    pub(super) monitor: SocketAddr,
    /// The effects, a line for each.
    pub(super) ledger: PathBuf,
    /// As the command line names it.
    pub(super) store: String,
}

impl Parts {
    pub(super) fn new(language: Language, directory: &Path) -> Self {
        let [service, proxy, monitor] = std::array::from_fn(|_| free_address());
        let (ledger, store) = (directory.join("ledger"), format!("sled:{}", directory.join("store").display()));
        Self { language, service, proxy, monitor, ledger, store }
    }

    pub(super) async fn start_service(&self) -> Process {
        let (interpreter, file) = self.language.command();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/idem/proxy").join(file);
        let mut command = Command::new(interpreter);
        command.arg(file).arg(self.service.to_string()).arg(&self.ledger).stdin(Stdio::null()).stderr(Stdio::null());
        let process = Process(command.spawn().unwrap());
        accepts(self.service).await;
        process
    }

    pub(super) async fn start_proxy(&self, more: &[&str]) -> Process {
        let (listen, monitor, upstream) =
            (self.proxy.to_string(), self.monitor.to_string(), format!("http://{}", self.service));
        let arguments =
            ["proxy", "--listen", &listen, "--monitor", &monitor, "--upstream", &upstream, "--store", &self.store];
        let mut command = program(&[&arguments[..], more].concat());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process(command.spawn().unwrap());
        accepts(self.proxy).await;
        process
    }

    pub(super) fn effects(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.ledger).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

async fn accepts(address: SocketAddr) {
    until("it accepts connections", async || TcpStream::connect(address).await.is_ok()).await;
}
