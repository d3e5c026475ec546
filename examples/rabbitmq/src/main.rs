//! `cargo run -p rabbitmq`: orders come in, mails go out, and acknowledgements are lost.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::process::ExitCode;

use rabbitmq::{Broker, Sum, run};

const ORDERS: u64 = 250;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error + Send + Sync>> {
    let broker = Broker::start()?;
    println!("{ORDERS} orders; the acknowledgement of each is lost once, with its connection\n");
    println!("{:22}{:>11}{:>13}{:>7}{:>12}{:>6}", "", "deliveries", "redelivered", "mails", "sent twice", "lost");
    let mut is_right = true;
    for (name, with_crate) in [("without this crate", false), ("with this crate", true)] {
        let Sum { deliveries, redelivered, mails, twice, lost } = run(&broker, ORDERS, with_crate).await?;
        println!("{name:22}{deliveries:>11}{redelivered:>13}{mails:>7}{twice:>12}{lost:>6}");
        is_right &= redelivered == ORDERS && lost == 0 && (twice == 0) == with_crate;
    }
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
