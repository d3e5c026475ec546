//! The command line.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tower_idempotency::internals::{read_store_name, spoilt};

use crate::settings::Settings;

/// A payment server whose charges can be retried safely.
// It has no `Debug`: a URL may hold a password.
#[derive(Parser)]
pub(crate) struct Args {
    /// The address to listen on; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:4242")]
    pub(crate) listen: SocketAddr,
    /// The directory of this server's charges, and with `--store sled` or `fjall` of its idempotency records.
    ///
    /// With `--atomic` and PostgreSQL, charges are in the database, and this directory is not used.
    #[arg(long, default_value = "./payment-data", value_parser = path)]
    pub(crate) data: PathBuf,
    /// The place of the idempotency records: `sled`, `sled:PATH`, `fjall`, `fjall:PATH`, `memory`,
    /// `postgres://USER@HOST/DATABASE` or `redis://HOST`. All else is refused. fjall, PostgreSQL and Redis are features
    /// of the program.
    ///
    /// Servers share a database of PostgreSQL or Redis. `memory` forgets everything, charges included, when the server
    /// ends.
    #[arg(long, value_name = "URL", default_value = "sled")]
    pub(crate) store: Place,
    /// Makes no new directories: a server whose volume is not mounted then does not start, and forgets no key.
    #[arg(long)]
    pub(crate) existing: bool,
    /// Starts with records that a damaged disk has lost, as the error that names this batch says.
    #[arg(long, value_name = "BATCH")]
    pub(crate) accept_loss_after: Option<u64>,
    /// The bytes of new records that fjall keeps in memory, for the laboratories.
    #[cfg(feature = "fjall")]
    #[arg(long, hide = true, value_name = "BYTES")]
    pub(crate) memtable_bytes: Option<u64>,
    /// The time for which this server counts as alive without a sign of life, to those that share its database.
    /// Default: 30.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) lease: Option<u64>,
    /// The namespace. Its servers share their keys; others in the same database don't. Default: that of
    /// a `redis` URL, or `payments`.
    #[arg(long, value_parser = text)]
    pub(crate) namespace: Option<String>,
    /// The treatment of a retry after an interrupted run. Default: `refuse`; with `--atomic`, `rerun`.
    #[arg(long, value_enum)]
    pub(crate) on_interrupted: Option<Interrupted>,
    /// Writes a charge or refund that has a key, and the record of its answer, in one transaction.
    ///
    /// With `--store postgres://…`, the servers of a namespace then have one ledger, in the database. Give it to all of
    /// them: an operation that a server without it has left half done would run again.
    #[arg(long)]
    pub(crate) atomic: bool,
    /// The time for which an answer is replayed, in seconds.
    #[arg(long, default_value = "86400")]
    pub(crate) retention: u64,
    /// The treatment of a duplicate while the first still runs: `reject` or `wait:SECONDS`.
    #[arg(long, default_value = "wait:2")]
    pub(crate) on_in_flight: InFlight,
    /// A TOML file, or a JSON file that ends with `.json`, with settings of the layer and the stores.
    ///
    /// They override `--retention`, `--on-in-flight`, `--on-interrupted` and `--lease`. Environment variables such as
    /// `PAYMENTS_LAYER__RETENTION=48h` override them.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What that file and the environment say.
    #[arg(skip)]
    pub(crate) settings: Settings,
}

/// The place of the records.
#[derive(Clone)]
pub(crate) enum Place {
    /// A directory; `None` is that of the charges.
    Embedded(Engine, Option<PathBuf>),
    Memory,
    Postgres(String),
    Redis(String),
    /// A value that is not understood, and what to write in its place. The error does not repeat the value, because it
    /// may be a URL with a password.
    Unknown(&'static str),
}

/// A storage engine in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Engine {
    Sled,
    Fjall,
}

impl Place {
    /// Returns whether several servers may have their records there.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_) | Self::Redis(_))
    }
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match (text, read_store_name(text)) {
            ("sled", _) => Self::Embedded(Engine::Sled, None),
            ("fjall", _) => Self::Embedded(Engine::Fjall, None),
            ("memory", _) | (_, Ok(("memory", _))) => Self::Memory,
            (_, Ok(("sled", path))) => Self::Embedded(Engine::Sled, Some(path.into())),
            (_, Ok(("fjall", path))) => Self::Embedded(Engine::Fjall, Some(path.into())),
            (_, Ok(("postgres", url))) => Self::Postgres(url.to_owned()),
            (_, Ok(("redis", url))) => Self::Redis(url.to_owned()),
            (_, Ok(_)) => Self::Unknown("write the engine before the path"),
            (_, Err(hint)) => Self::Unknown(hint),
        })
    }
}

/// Reads the path of a directory, as `sled:PATH` has it.
fn path(text: &str) -> Result<PathBuf, &'static str> {
    let name = format!("sled:{text}");
    read_store_name(&name).map(|(_, path)| path.into())
}

/// Refuses a text that a shell or a file of variables has not read as its author meant.
fn text(text: &str) -> Result<String, &'static str> {
    spoilt(text).map_or_else(|| Ok(text.to_owned()), Err)
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Interrupted {
    /// Answers 409, until an operator settles the operation.
    Refuse,
    /// Runs the operation again.
    Rerun,
    /// Asks the ledger.
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
