//! The payment server as a library, so that the laboratories have it as a program of their own. `main.rs` says what it
//! does.

mod api;
mod args;
mod connections;
mod evidence;
mod json;
mod ledger;
mod lines;
mod names;
mod read_on;
mod reconcile;
mod server;
mod settings;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod shared;
mod stop;
mod stores;

use std::error::Error;
use std::io::IsTerminal as _;
use std::str::FromStr as _;

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use lines::Lines;

/// Runs the server with the arguments of the process, which it ends.
pub async fn main() {
    let args = args::Args::try_parse().unwrap_or_else(|error| without_urls(error).exit());
    // sled logs much, and at trace all that it stores.
    let given = std::env::var("RUST_LOG").ok().and_then(|filter| Targets::from_str(&filter).ok());
    let filter = given.unwrap_or_else(|| Targets::from_str("info,sled=warn").unwrap_or_default());
    let (lines, written) = Lines::to_stderr();
    let ansi = std::io::stderr().is_terminal();
    let format = tracing_subscriber::fmt::layer().with_writer(lines).with_ansi(ansi).log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(format).init();
    let code = match server::run(args).await {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{}", chain(error.as_ref()));
            1
        }
    };
    written.wait();
    // The process exits at once: a thread that waits for a broken disk would keep the runtime from ending.
    std::process::exit(code)
}

/// Leaves out of an error of the command line what may be a URL with a password.
fn without_urls(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::Suggested] {
        let said = error.get(kind).map(ToString::to_string).unwrap_or_default();
        if ["@", "://", "password"].iter().any(|part| said.contains(part)) {
            error.insert(kind, ContextValue::String("…".to_owned()));
        }
    }
    error
}

/// Returns an error and its causes as one text.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
