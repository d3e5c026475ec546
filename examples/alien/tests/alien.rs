//! The program as it is shown to people: what it counts, how it ends, and what its report looks like.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use testkit::dice::number;
use testkit::postgres::own_server;
use testkit::skipped;

/// The share of payments that may stay unknown where the next process finishes what a kill has cut.
const FEW: f64 = 0.1;

/// Runs the alien, and returns what the naive side and ours have counted.
fn run(server: &[&str], arguments: &[&str], report: &Path) -> [Vec<u64>; 2] {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alien"));
    command.args(server).args(arguments).arg("--report").arg(report);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // The table at the end.
    let table = text.rsplit_once("tower-idempotency\n").unwrap().1;
    let column = |column: usize| {
        let number = |name: &str| {
            let line = table.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().nth(column).unwrap().parse().unwrap()
        };
        ["payments", "acknowledged", "unknown", "charges", "CHARGED TWICE", "LOST"].map(number).into()
    };
    [column(0), column(1)]
}

/// Payments that each have an end, and the totals of both sides agree, for at least so many. At most this share of them
/// is unknown at the end.
fn agrees(server: &[&str], unknown_at_most: f64) {
    let directory = tempfile::tempdir().unwrap();
    let payments: u64 = number("PAYMENTS").unwrap_or(400);
    let report = directory.path().join("report.html");
    let [naive, ours] = run(server, &["--customers", "30", "--payments", &payments.to_string()], &report);
    assert!(naive[4] > 0, "the naive server was not harmed");
    let [made, acknowledged, unknown, charges, twice, lost] = ours[..] else { panic!("{ours:?}") };
    assert_eq!((made, twice, lost), (payments, 0, 0));
    // An unknown one is reported with its key, and may have been charged. Few are, or this shows nothing.
    assert!(unknown as f64 <= unknown_at_most * payments as f64, "{ours:?}");
    assert_eq!(acknowledged + unknown, payments);
    assert!((acknowledged..=acknowledged + unknown).contains(&charges), "{ours:?}");
    let report = std::fs::read_to_string(report).unwrap();
    assert!(report.contains("0 with it") && report.contains("THE SERVER CHARGES"));
    for outside in ["http:", "https:", "<script", "src=", "url("] {
        assert!(!report.contains(outside), "the report needs {outside}");
    }
}

// The long form: PAYMENTS=10000.
#[test]
fn on_sled_with_kills_each_payment_is_charged_once_or_its_customer_has_a_key() {
    agrees(&[], FEW);
}

#[test]
fn in_memory_with_pauses_too() {
    agrees(&["--store", "memory"], FEW);
}

#[test]
fn behind_the_proxy_whose_service_has_no_layer_with_kills_of_both_too() {
    // A kill leaves what is under way unknown: no more than were acknowledged since the one before it.
    agrees(&["--proxy"], 0.5);
}

#[test]
fn on_postgres_with_three_servers_and_kills_too() {
    let Some(server) = own_server("the alien before three servers", &[]) else { return };
    agrees(&["--store", &server.url()], FEW);
}

#[test]
fn a_store_that_there_is_not_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_alien")).args(["--store", "mysql://x"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--store is sled, memory"));
}

// `SCREENSHOTS=$PWD/docs/running/screenshots` takes the guide's picture, of a run with the defaults.
#[test]
fn the_report_is_readable_by_day_and_by_night() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.html");
    let wanted = std::env::var_os("SCREENSHOTS");
    let seconds = if wanted.is_some() { "20" } else { "2" };
    run(&[], &["--customers", "50", "--seconds", seconds], &report);
    let mut pictures = Vec::new();
    for (name, scheme) in [("dark", 0), ("light", 1)] {
        let picture = directory.path().join(format!("alien-{name}.png"));
        let mut browser = Command::new("chromium");
        browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=760,1240"]);
        browser.arg(format!("--blink-settings=preferredColorScheme={scheme}"));
        browser.arg(format!("--user-data-dir={}", directory.path().join("profile").display()));
        browser.arg(format!("--screenshot={}", picture.display())).arg(format!("file://{}", report.display()));
        match browser.output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => return skipped("that the report is readable", &format!("chromium: {error}")),
        }
        if let Some(wanted) = wanted.as_ref().filter(|_| name == "light") {
            std::fs::copy(&picture, Path::new(wanted).join("alien-light.png")).unwrap();
        }
        pictures.push(std::fs::read(picture).unwrap());
    }
    assert!(pictures[0] != pictures[1] && pictures.iter().all(|picture| picture.len() > 20_000));
}
