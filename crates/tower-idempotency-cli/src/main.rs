//! `idem`: what operators do with the store of a service, from a shell. [The guide][guide] has a page on it.
//!
//! [guide]: https://docs.rs/tower-idempotency/latest/tower_idempotency/guide/idem/index.html

// - `arguments.rs`: the command line. `place.rs`: which store it names. `failure.rs`: exit codes.
// - `input.rs`: what is a secret comes from standard input. `consent.rs`: what a change does, and whether it is meant.
// - `open/`: opens the store. `screen/`: what is written, as text and as JSON.
// - `commands/`: one file for each command but `doctor/`.

mod arguments;
mod commands;
mod consent;
mod doctor;
mod failure;
mod input;
mod open;
mod place;
mod screen;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter as Level, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::arguments::{Arguments, Command};
use self::failure::{Ended, Failure};
use self::screen::Screen;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new(arguments.options.json);
    log();
    match run(arguments, &screen) {
        Ok(ended) => ended.into(),
        Err(failure) => failure.report(),
    }
}

fn run(Arguments { options, command }: Arguments, screen: &Screen) -> Result<Ended, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Store(format!("no thread can be started: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Ls(ls) => commands::ls::run(&options, ls, screen).await,
            Command::Find(find) => commands::find::run(&options, find, screen).await,
            Command::Show(show) => commands::show::run(&options, show, screen).await,
            Command::Settle(settle) => commands::settle::run(&options, settle, screen).await,
            Command::Forget(forget) => commands::forget::run(&options, forget, screen).await,
            Command::Verify(verify) => commands::verify::run(&options, verify, screen).await,
            Command::Copy(copy) => commands::copy::run(&options, copy, screen).await,
            Command::Doctor(doctor) => doctor::run(&options, doctor, screen).await,
        }
    })
}

/// Writes the audit events of changes, and what the store warns of, to standard error: standard output is for the
/// answer alone. The database's client would log what it sends; none of that is written. What a database can lose is
/// for `doctor` to say, and not for each command.
fn log() {
    let shown = Targets::new()
        .with_target("tower_idempotency", Level::WARN)
        .with_target("tower_idempotency::audit", Level::INFO);
    let shown = shown.and(filter_fn(|event| event.fields().field("loses").is_none()));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(shown)).init();
}
