//! Orders that are delivered again, because the consumers are killed before they commit, send one mail.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use testkit::skipped;

/// Runs the example over this broker. It fails if fewer than 200 orders are delivered again, if a mail is lost, if one
/// is sent twice with the crate, or if none is without it.
fn run(broker: &str) {
    let run = Command::new(env!("CARGO_BIN_EXE_kafka")).arg(broker).output().unwrap();
    assert!(run.status.success(), "{broker}: {run:#?}");
}

#[test]
fn orders_of_librdkafkas_cluster_that_are_redelivered_send_one_mail() {
    run("mock");
}

#[test]
fn orders_of_tansu_that_are_redelivered_send_one_mail() {
    let tansu = std::env::var("TANSU").unwrap_or_else(|_| "tansu".to_owned());
    if Command::new(&tansu).arg("--help").output().is_err() {
        return skipped("that redelivered orders of tansu send one mail", "set TANSU to the path of the program");
    }
    run("tansu");
}
