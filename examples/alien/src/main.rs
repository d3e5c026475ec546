//! `cargo run -p alien`: a devious alien sits between customers and two payment servers, a naive one and one with this
//! crate. It swallows messages, delays and doubles them, cuts connections, and stops and kills processes. At the end it
//! is counted who was charged twice.
//!
//! `fate.rs` decides, from a seed; `alien.rs` does it to requests, `run.rs` and `processes.rs` do it to servers.
//! `server.rs` and `bank.rs` are the servers, `customer.rs` the customers. `counts.rs` keeps what happens, `screen.rs`
//! shows it, and `report.rs` writes it down.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod alien;
mod bank;
mod counts;
mod customer;
mod fate;
mod processes;
mod report;
mod run;
mod screen;
mod server;

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::counts::{Side, Story};
use crate::report::report;
use crate::run::{Settings, run};
use crate::screen::Screen;
use crate::server::{Serve, serve};

/// A devious alien between customers and two payment servers, a naive one and one with tower-idempotency.
///
/// Ends with 1 if the second one has charged a payment twice, or has lost an acknowledged charge.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    /// Where the report is written.
    #[arg(long, default_value = "alien.html")]
    report: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// One of the servers.
    #[command(hide = true)]
    Serve(Serve),
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error + Send + Sync>> {
    let cli = Cli::parse();
    if let Some(Command::Serve(settings)) = cli.command {
        return serve(settings).await.map(|()| ExitCode::SUCCESS);
    }
    let story = Story::new(cli.settings.seed);
    let mut screen = Screen::open();
    let verdicts = run(&cli.settings, &story, |story| screen.show(story)).await;
    screen.close();
    let verdicts = match verdicts {
        Err(error) if error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == ErrorKind::Interrupted) => {
            println!("stopped: nothing was decided");
            return Ok(ExitCode::from(130));
        }
        verdicts => verdicts?,
    };
    println!("{:22}{:>14}{:>20}", "", Side::Naive.name(), Side::Ours.name());
    for (naive, ours) in story.numbers(Side::Naive).iter().zip(story.numbers(Side::Ours)) {
        println!("{:22}{:>14}{:>20}", naive.0, naive.1, ours.1);
    }
    for key in &verdicts[Side::Ours as usize].unknown {
        println!("unknown: ask again with the key {key}");
    }
    std::fs::write(&cli.report, report(&cli.settings, &story, &verdicts))?;
    println!("\nthe report: {}", cli.report.display());
    let is_right = verdicts[Side::Ours as usize].is_right();
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
