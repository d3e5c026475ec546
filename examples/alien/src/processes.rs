//! The servers' processes: they are started, killed, stopped and started again.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testkit::dice::free_address;
use testkit::process::{Process, signal};

/// How long a server may take to listen.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

/// A server, whose process may be another one from time to time.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
    process: Process,
}

impl Server {
    /// Starts it.
    pub(crate) fn start(naive: bool, ledger: &str, schema: &str) -> io::Result<Self> {
        let mut more = vec!["--schema".to_owned(), schema.to_owned()];
        more.extend(naive.then(|| "--naive".to_owned()));
        Self::with(ledger, more)
    }

    /// Starts a proxy in front of it, with its records in a directory.
    pub(crate) fn proxy(&self, directory: &str) -> io::Result<Self> {
        Self::with(directory, vec!["--upstream".to_owned(), self.address.to_string()])
    }

    fn with(ledger: &str, more: Vec<String>) -> io::Result<Self> {
        let address = free_address();
        let mut arguments: Vec<String> = ["serve", "--listen"].map(str::to_owned).into();
        arguments.extend([address.to_string(), "--ledger".to_owned(), ledger.to_owned()]);
        arguments.extend(more);
        let process = spawn(&arguments)?;
        Ok(Self { address, arguments, process })
    }

    /// Waits until it listens.
    pub(crate) async fn listens(&mut self) -> io::Result<()> {
        let began = Instant::now();
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.process.0.try_wait()? {
                return Err(io::Error::other(format!("a server has ended: {status}")));
            }
            if began.elapsed() > STARTS_WITHIN {
                return Err(io::Error::other("a server does not listen"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Kills the process (SIGKILL), and starts another one, at the same address and with the same ledger.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.process.kill();
        self.process = spawn(&self.arguments)?;
        Ok(())
    }

    /// Stops the process where it is.
    pub(crate) fn pause(&self) {
        signal(self.process.0.id(), "STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        signal(self.process.0.id(), "CONT");
    }
}

fn spawn(arguments: &[String]) -> io::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    // Its input ends with this process, and it then ends too.
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(Process)
}
