//! `cargo run -p kafka`: orders come in, mails go out, and the consumers are killed between the two.
//!
//! `cargo run -p kafka -- tansu` does the same with tansu in place of librdkafka's own cluster.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod broker;
mod consumer;
mod mailer;
mod member;
mod notes;
mod run;

use std::path::Path;
use std::process::ExitCode;

use broker::Broker;
use run::{REDELIVERED, Sum};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [member, broker, directory, with_crate, commit_every] = &arguments[..]
        && member == "member"
    {
        member::run(broker, Path::new(directory), with_crate == "true", commit_every.parse()?).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let broker: fn() -> Result<Broker, Failure> = match arguments.first().map(String::as_str) {
        None | Some("mock") => Broker::mock,
        Some("tansu") => Broker::tansu,
        Some(other) => return Err(format!("{other}: the brokers are mock and tansu").into()),
    };
    let mut is_right = true;
    for (name, with_crate) in [("without this crate", false), ("with this crate", true)] {
        let broker = broker()?;
        let sum = run::run(&broker, with_crate).await?;
        let Sum { deliveries, redelivered, commits_lost, revocations, mails, twice, lost, set_aside } = sum;
        println!("{name}: {mails} mails, {twice} of them sent twice or more often, {lost} lost, {set_aside} set aside");
        println!("  {deliveries} deliveries, {redelivered} of them repeated; {commits_lost} commits lost");
        println!("  partitions were revoked {revocations} times while their consumer worked");
        is_right &= lost == 0 && (twice == 0) == with_crate && (set_aside > 0) == with_crate;
        is_right &= redelivered >= REDELIVERED && revocations > 0;
        is_right &= commits_lost > 0 || !matches!(broker, Broker::Mock(_));
    }
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
