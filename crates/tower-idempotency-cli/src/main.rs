#![doc = include_str!("../README.md")]
// - `arguments/`: the command line. `failure.rs`: exit codes. `screen/`: what is written, as text and as JSON.
// - With the feature `check`, `check.rs`: examines a server from outside.
// - With the feature `proxy`, `proxy/`: serves in front of a service.
// - With the feature `store`: `address.rs` reads which store is meant, `open/` opens it, `input.rs` reads secrets from
//   standard input, `text.rs` the text of files, `consent.rs` asks before a change; `commands/` has one file for each
//   command but `doctor/`.

#[cfg(feature = "store")]
mod address;
mod arguments;
#[cfg(feature = "check")]
mod check;
#[cfg(feature = "store")]
mod commands;
#[cfg(feature = "store")]
mod consent;
#[cfg(feature = "store")]
mod doctor;
mod failure;
#[cfg(feature = "store")]
mod input;
#[cfg(feature = "store")]
mod open;
#[cfg(feature = "proxy")]
mod proxy;
mod screen;
#[cfg(any(feature = "store", feature = "check"))]
mod text;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter as Level, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::arguments::{Arguments, Command};
use self::failure::{Ended, Failure};
use self::screen::Screen;

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| without_urls(error).exit());
    let screen = Screen { is_json: arguments.options.json };
    log(is_service(&arguments.command));
    match run(arguments, screen) {
        Ok(ended) => ExitCode::from(ended as u8),
        Err(failure) => failure.report(),
    }
}

/// Leaves out of an error of the command line what may be a URL with a password.
fn without_urls(mut error: clap::Error) -> clap::Error {
    use ContextKind::{InvalidArg, InvalidSubcommand, InvalidValue, Suggested};
    for kind in [InvalidArg, InvalidSubcommand, InvalidValue, Suggested] {
        let said = error.get(kind).map(ToString::to_string).unwrap_or_default();
        if ["@", "://", "password"].iter().any(|part| said.contains(part)) {
            error.insert(kind, ContextValue::String("…".to_owned()));
        }
    }
    error
}

/// Returns whether a command runs until it is stopped.
fn is_service(command: &Command) -> bool {
    match command {
        #[cfg(feature = "proxy")]
        Command::Proxy(_) => true,
        #[allow(unreachable_patterns, reason = "a build may have no other command")]
        _ => false,
    }
}

fn run(arguments: Arguments, screen: Screen) -> Result<Ended, Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if !is_service(&arguments.command) {
        runtime.worker_threads(2);
    }
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Store(format!("no thread can be started: {error}")))?;
    runtime.block_on(async {
        match arguments.command {
            #[cfg(feature = "store")]
            Command::Store(command) => commands::run(&arguments.options.store, command, screen).await,
            #[cfg(feature = "store")]
            Command::Outbox(command) => commands::run_outbox(&arguments.options.store, command, screen).await,
            #[cfg(feature = "check")]
            Command::Check(check) => check::run(*check, screen).await,
            #[cfg(feature = "proxy")]
            Command::Proxy(proxy) => proxy::run(&arguments.options.store, *proxy, screen).await,
        }
    })
}

/// Writes the audit events of changes, and what the store warns of, to standard error: standard output is for the
/// answer alone. The database's client would log what it sends; none of that is written. What a database can lose is
/// for `doctor` and for a service to say, and not for each command.
fn log(is_service: bool) {
    let shown = Targets::new()
        .with_target("tower_idempotency", Level::WARN)
        .with_target("tower_idempotency::audit", Level::INFO);
    let shown = shown.and(filter_fn(move |event| is_service || event.fields().field("loses").is_none()));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(shown)).init();
}
