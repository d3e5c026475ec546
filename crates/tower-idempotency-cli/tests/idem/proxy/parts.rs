//! A service in another language, and the proxy in front of it, as processes that are killed and started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::{TempDir, tempdir};
use testkit::dice::free_address;
use testkit::process::Process;
use testkit::skipped;

use crate::program::{self, accepts};

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

    /// Returns the parts in a directory of their own, with the service in Python started. Returns `None`, after it has
    /// said that this promise is not shown, if Python is missing.
    pub(super) async fn served(promise: &str) -> Option<(TempDir, Self, Process)> {
        if !Language::Python.is_there() {
            skipped(promise, "there is no python3");
            return None;
        }
        let directory = tempdir().unwrap();
        let parts = Self::new(Language::Python, directory.path());
        let service = parts.start_service().await;
        Some((directory, parts, service))
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

    pub(super) fn proxy_command(&self) -> Command {
        program::proxy(self.proxy, self.monitor, &format!("http://{}", self.service), &self.store)
    }

    /// Starts the proxy with these options, for one account unless they say otherwise.
    pub(super) async fn start_proxy(&self, more: &[&str]) -> Process {
        let one = (!more.iter().any(|option| option.starts_with("--scope") || *option == "--one-account"))
            .then_some("--one-account");
        self.start_proxy_by(self.proxy_command().args(more).args(one)).await
    }

    pub(super) async fn start_proxy_by(&self, command: &mut Command) -> Process {
        let process = Process(command.spawn().unwrap());
        accepts(self.proxy).await;
        process
    }

    pub(super) fn effects(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.ledger).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
