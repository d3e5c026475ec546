//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// A payment server whose charges can be retried safely.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:4242")]
    pub(crate) listen: SocketAddr,
    /// The directory of charges and idempotency records.
    #[arg(long, default_value = "./payment-data")]
    pub(crate) data: PathBuf,
    /// `memory` forgets everything, charges included, when the server ends.
    #[arg(long, value_enum, default_value = "sled")]
    pub(crate) store: StoreKind,
    /// What a retry gets when the run before it was interrupted. Default: `refuse`; with `--atomic`, `rerun`.
    #[arg(long, value_enum)]
    pub(crate) on_interrupted: Option<Interrupted>,
    /// Writes a charge or refund that has a key, and the record of its answer, in one transaction.
    #[arg(long)]
    pub(crate) atomic: bool,
    /// How long an answer is replayed, in seconds.
    #[arg(long, default_value = "86400")]
    pub(crate) retention: u64,
    /// What a duplicate gets while the first still runs: `reject` or `wait:SECONDS`.
    #[arg(long, default_value = "wait:2")]
    pub(crate) on_in_flight: InFlight,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StoreKind {
    Sled,
    Memory,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Interrupted {
    /// 409, until an operator settles it.
    Refuse,
    /// It runs again.
    Rerun,
    /// The ledger is asked.
    Reconcile,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum InFlight {
    Reject,
    Wait(Duration),
}

impl FromStr for InFlight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "reject" {
            return Ok(Self::Reject);
        }
        let seconds = text.strip_prefix("wait:").and_then(|seconds| seconds.parse::<f64>().ok());
        let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        wait.map(Self::Wait).ok_or_else(|| "give `reject` or `wait:SECONDS`".to_owned())
    }
}
