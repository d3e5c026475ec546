//! No answer comes before its record is durable: the system calls of the real server, as strace sees them.
//!
//! For every charge that is answered, its record was written to the store's file, then an `fdatasync` of that file
//! began and returned, and only then was the answer written to the socket.
//!
//! The order is that of strace's lines. strace holds a thread at the beginning and at the end of each call until the
//! line is written, so the order of the log is the real order.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::tempdir;
use testkit::payment_server::Setup;
use testkit::process::eventually;
use testkit::{Call, Connection, skipped};
use tokio::task::JoinSet;

use super::ENGINES;

/// One system call, with its first and its last line in the log.
#[derive(Debug)]
struct SystemCall<'a> {
    name: &'a str,
    arguments: &'a str,
    began: usize,
    /// The line at which it returned. `None`: it never returned, or failed.
    returned: Option<usize>,
}

impl SystemCall<'_> {
    /// Returns whether it is on sled's log, or on fjall's journal.
    fn is_on_database(&self) -> bool {
        let descriptor = self.arguments.split(['>', ',']).next();
        descriptor.is_some_and(|descriptor| descriptor.ends_with("/db") || descriptor.ends_with(".jnl"))
    }

    fn is_write(&self) -> bool {
        self.name == "pwrite64" || self.name == "write"
    }

    fn is_on_socket(&self) -> bool {
        let descriptor = self.arguments.split('>').next();
        descriptor.is_some_and(|descriptor| descriptor.contains("<socket:") || descriptor.contains("<TCP"))
    }
}

/// Reads `PID name(arguments) = result`, in one line or in two, `<unfinished ...>` and `<... resumed>`.
fn parse(log: &str) -> Vec<SystemCall<'_>> {
    let mut calls: Vec<SystemCall<'_>> = Vec::new();
    let mut unfinished = HashMap::new();
    for (number, line) in log.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let returned = rest.rsplit_once(" = ").filter(|(_, result)| !result.starts_with('-')).map(|_| number);
        if rest.starts_with("<... ") {
            if let Some(call) = unfinished.remove(thread) {
                let call: &mut SystemCall<'_> = &mut calls[call];
                call.returned = returned;
            }
        } else if let Some((name, arguments)) = rest.split_once('(') {
            let is_unfinished = rest.ends_with("<unfinished ...>");
            if is_unfinished {
                unfinished.insert(thread, calls.len());
            }
            let returned = returned.filter(|_| !is_unfinished);
            calls.push(SystemCall { name, arguments, began: number, returned });
        }
    }
    calls
}

/// The writes of a record that the sync has to follow.
#[derive(Debug, Clone, Copy)]
enum Writes {
    /// All writes before the answer, for requests that follow one another.
    All,
    /// One write. sled moves records that are durable already together with those of later batches, and that does not
    /// concern the answer.
    One,
}

/// The violations: charges that were answered before their record was durable. A charge's id is in its record and in
/// its answer, and nowhere else: the ledger keeps it as 16 bytes.
fn answered_too_early(log: &str, charges: &[String], writes: Writes) -> Vec<String> {
    let calls = parse(log);
    let syncs: Vec<_> = calls.iter().filter(|call| call.name == "fdatasync" && call.is_on_database()).collect();
    let early = |charge: &String| {
        let of_charge = |call: &&SystemCall<'_>| call.arguments.contains(charge.as_str());
        let Some(answer) = calls.iter().filter(of_charge).find(|call| call.is_on_socket()) else {
            return Some(format!("{charge}: no answer was seen"));
        };
        let written = calls.iter().filter(of_charge).filter(|call| call.is_write() && call.is_on_database());
        let mut written = written.filter(|write| write.began < answer.began);
        let write = match writes {
            Writes::All => written.next_back(),
            Writes::One => written.next(),
        };
        let Some(written) = write.and_then(|write| write.returned) else {
            return Some(format!("{charge}: answered before it was written"));
        };
        let synced = |sync: &&SystemCall<'_>| {
            sync.began > written && sync.returned.is_some_and(|returned| returned < answer.began)
        };
        let found = syncs.iter().any(synced);
        (!found).then(|| format!("{charge}: written in line {written}, answered in {}", answer.began))
    };
    charges.iter().filter_map(early).collect()
}

/// The reason why tracing is impossible here, if it is.
fn obstacle() -> Option<String> {
    let tried = Command::new("strace").args(["-D", "-f", "-o", "/dev/null", "true"]).output();
    match tried {
        Err(error) => Some(format!("strace can't be run: {error}")),
        Ok(output) if !output.status.success() => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Ok(_) => None,
    }
}

fn has_ended(log: &str, process: u32) -> bool {
    // Numbers are padded to five columns.
    let is_end =
        |line: &str| line.split_whitespace().eq([process.to_string().as_str(), "+++", "exited", "with", "0", "+++"]);
    log.lines().rev().any(is_end)
}

/// Charges over this number of connections, and returns strace's log and the ids of the answered charges.
async fn traced(directory: &Path, arguments: &str, connections: usize, each: usize) -> (String, Vec<String>) {
    let trace = directory.join("trace");
    // -D: the server stays our own child.
    let words = "strace -D -f -y -s 1000000 -e trace=fdatasync,fsync,pwrite64,write,writev,sendto,sendmsg -o";
    let wrapper = words.split(' ').map(OsString::from).chain([trace.clone().into_os_string()]);
    let server = Setup::new(directory).with(arguments).under(wrapper).start();
    let (address, id) = (server.address, server.id());
    let mut clients = JoinSet::new();
    for client in 0..connections {
        clients.spawn(async move {
            let mut connection = Connection::http1(address).await.expect("the server listens");
            let mut charges = Vec::new();
            for number in 0..each {
                let answer = connection.send(&Call::charge(&format!("{client}-{number}"), "tok_visa")).await;
                let answer = answer.expect("the server answers");
                assert_eq!(answer.status, 200, "{}", answer.text());
                charges.push(answer.json()["id"].as_str().expect("a charge has an id").to_owned());
            }
            charges
        });
    }
    let charges: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    assert_eq!(charges.len(), connections * each);
    server.stop().await;
    // The server has ended; strace may still be logging that.
    let complete = || Some(fs::read_to_string(&trace).expect("strace writes text")).filter(|log| has_ended(log, id));
    (eventually("strace's last line", complete).await, charges)
}

async fn every_answer_follows_its_sync(connections: usize, each: usize, writes: Writes) {
    if let Some(obstacle) = obstacle() {
        skipped("that every answer follows its sync", &obstacle);
        return;
    }
    for store in ENGINES {
        let directory = tempdir().unwrap();
        let arguments = format!("--store {store} --on-interrupted refuse");
        let (log, charges) = traced(directory.path(), &arguments, connections, each).await;
        let early = answered_too_early(&log, &charges, writes);
        assert!(early.is_empty(), "{store}: {} of {}: {early:#?}", early.len(), charges.len());
        // The control: had it not synced, this would have failed.
        let unsynced: String =
            log.lines().filter(|line| !line.contains("fdatasync")).flat_map(|line| [line, "\n"]).collect();
        assert_eq!(answered_too_early(&unsynced, &charges, writes).len(), charges.len());
        println!("{} answers over {connections} connections from {store}, each after its fdatasync", charges.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_after_the_other_every_answer_follows_its_sync() {
    every_answer_follows_its_sync(1, 20, Writes::All).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_64_connections_every_answer_follows_its_sync() {
    every_answer_follows_its_sync(64, 4, Writes::One).await;
}

/// Returns the numbers of syncs between the answers to charges that came one after the other.
fn syncs_per_charge(log: &str, charges: &[String]) -> Vec<usize> {
    let calls = parse(log);
    let answered = charges.iter().map(|charge| {
        let answer = calls.iter().find(|call| call.arguments.contains(charge.as_str()) && call.is_on_socket());
        answer.expect("it was answered").began
    });
    let answered: Vec<_> = answered.collect();
    let between = |pair: &[usize]| {
        let synced = calls.iter().filter(|call| call.name == "fdatasync" && call.is_on_database());
        synced.filter(|sync| pair[0] < sync.began && sync.began < pair[1]).count()
    };
    answered.windows(2).map(between).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_charge_costs_one_sync_in_one_transaction_and_three_without() {
    if let Some(obstacle) = obstacle() {
        skipped("how many syncs a charge costs", &obstacle);
        return;
    }
    for (arguments, syncs) in [
        ("--atomic", 1),
        // The claim, the charge, the outcome.
        ("--store sled", 3),
        #[cfg(feature = "fjall")]
        ("--store fjall", 3),
        #[cfg(feature = "fjall")]
        ("--store fjall --atomic", 1),
        ("--on-interrupted reconcile", 3),
        // The charge, the outcome.
        ("--on-interrupted rerun", 2),
        // The claim, and both in one.
        ("--on-interrupted refuse --atomic", 2),
    ] {
        let directory = tempdir().unwrap();
        let (log, charges) = traced(directory.path(), arguments, 1, 20).await;
        let counted = syncs_per_charge(&log, &charges);
        assert_eq!(counted, [syncs; 19], "{arguments}");
        println!("{arguments}: {syncs} fdatasync for each of {} isolated charges", counted.len());
    }
}

mod checker {
    use super::{Writes, answered_too_early};

    const WRITE: &str = r#"7 pwrite64(9</data/db>, "\0\1{\"id\":\"ch_1\"}", 20, 512) = 20"#;
    const SYNC: &str = "7 fdatasync(10</data/db>) = 0";
    const ANSWER: &str =
        r#"8  writev(12<socket:[34]>, [{iov_base="HTTP/1.1 200 OK\r\n\r\n{\"id\":\"ch_1\"}", iov_len=30}], 1) = 30"#;

    fn is_early(lines: &[&str], writes: Writes) -> bool {
        !answered_too_early(&lines.join("\n"), &["ch_1".to_owned()], writes).is_empty()
    }

    #[test]
    fn a_sync_between_write_and_answer_is_good() {
        assert!(!is_early(&[WRITE, SYNC, ANSWER], Writes::All));
    }

    #[test]
    fn a_bad_order_is_found() {
        for lines in [
            [WRITE, ANSWER, SYNC],
            [SYNC, WRITE, ANSWER],
            [ANSWER, WRITE, SYNC],
            [WRITE, "7 fdatasync(11</data/other>) = 0", ANSWER],
            [WRITE, "7 fsync(11</data/db>) = 0", ANSWER],
            [WRITE, "7 fdatasync(10</data/db>) = -1 EIO (Input/output error)", ANSWER],
            [&WRITE.replace("ch_1", "ch_2"), SYNC, ANSWER],
            [&WRITE.replace("/data/db", "/data/0.jnl"), "7 fdatasync(11</data/keyspaces/1/v2>) = 0", ANSWER],
            [WRITE, SYNC, &ANSWER.replace("socket:[34]", "/data/db")],
        ] {
            assert!(is_early(&lines, Writes::All) && is_early(&lines, Writes::One), "{lines:?}");
        }
    }

    #[test]
    fn a_call_lasts_from_its_first_line_to_its_second() {
        let (begin, end) = ("7 fdatasync(10</data/db> <unfinished ...>", "7 <... fdatasync resumed>) = 0");
        let (write, written) = (
            r#"6 pwrite64(9</data/db>, "{\"id\":\"ch_1\"}", 20, 512 <unfinished ...>"#,
            "6 <... pwrite64 resumed>) = 20",
        );
        assert!(!is_early(&[write, written, begin, end, ANSWER], Writes::All));
        assert!(is_early(&[write, begin, written, end, ANSWER], Writes::All), "it began before the write had ended");
        assert!(is_early(&[write, written, begin, ANSWER, end], Writes::All), "it ended after the answer");
        assert!(is_early(&[write, written, begin, ANSWER], Writes::All), "it never ended");
        assert!(is_early(&[write, begin, end, ANSWER, written], Writes::All), "the write never ended in time");
    }

    #[test]
    fn a_record_that_is_written_again_has_to_be_synced_again_unless_it_was_only_moved() {
        let lines = [WRITE, SYNC, WRITE, ANSWER];
        assert!(is_early(&lines, Writes::All));
        assert!(!is_early(&lines, Writes::One));
    }
}
