//! A disk that hangs and comes back, under a payment server that gets new keys all the while. Every read, write and
//! sync below its data directory waits for as long as a file of the test's exists.
//!
//! The promises:
//! 1. Requests without a key, replays from memory and the health endpoint are answered all the while.
//! 2. Every request with a new key is answered: with a charge, or with a refusal that says to come again.
//! 3. A replay that must be read from the disk is answered too: it is refused until the disk answers.
//! 4. A refused request did not take place, and left no record: the store holds as many records as there were charges.
//! 5. The process takes little more memory than before.
//! 6. When the disk is back, a new key is served, and a refused request is charged when it is sent again.
//!
//! The long form needs a quiet machine. It asserts figures, too: a new key is served within a second of the disk's
//! return, and at the 99th percentile a request that needs no disk takes at most twice as long as before.
//!
//! ```text
//! ENGINE=sled HUNG_DISK=30 cargo test --release -p laboratories --test hung_disk -- --nocapture
//! ```
#![cfg(target_os = "linux")]

mod load;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use laboratories::disk::{counts, preload, quick_directory};
use laboratories::engine::{Engine, Settings};
use load::{Came, Clients, Kind, Latencies};
use testkit::dice::number;
use testkit::payment_server::Setup;
use testkit::process::memory;

/// The number of charges of an earlier process, which are on disk alone.
const COLD: usize = 20;
/// The most memory that the process may take in addition to its memory before the disk hung.
const MORE_MEMORY: u64 = 512 * 1024 * 1024;
/// The name of the memory that a process has, in `/proc`.
const RESIDENT: &str = "VmRSS:";
/// The time for which the test waits for a state that comes about once the disk is back.
const GIVE_UP: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trap_84_while_the_disk_hangs_all_that_needs_no_disk_goes_on_and_nothing_is_done_for_who_was_told_no() {
    for engine in Engine::chosen() {
        hang(engine, number("HUNG_DISK")).await;
    }
}

async fn hang(engine: Engine, seconds: Option<u64>) {
    let (hang, rate) = (Duration::from_secs(seconds.unwrap_or(4)), if seconds.is_some() { 2_000 } else { 300 });
    let directory = quick_directory();
    let hangs = directory.path().join("hangs");
    let setup = engine.serves(Setup::new(&directory).log("warn"));
    fs::create_dir(&setup.data).unwrap();
    let counts_file = directory.path().join("counts");
    let environment = [
        ("DISK_PRELOAD_COUNT", counts_file.clone().into_os_string()),
        ("LD_PRELOAD", preload().into_os_string()),
        ("DISK_PRELOAD_DIRECTORY", setup.data.canonicalize().unwrap().into_os_string()),
        ("DISK_PRELOAD_FAULT", word("write,sync,read 1 hang-while:", &hangs)),
    ];
    let words = environment.into_iter().map(|(name, value)| word_of(name, &value));
    let setup = setup.under([OsString::from("env")].into_iter().chain(words));
    let server = setup.start();
    let clients = Clients::connect(server.address).await;
    assert_eq!(clients.send(Kind::Remembered).await.status, Some(200));
    let base = clients.load(Duration::from_secs(seconds.map_or(2, |_| 10)), rate).await;
    let cold_keys = base.charged_keys(COLD);
    let before = memory(server.id(), RESIDENT);
    let others = clients;
    server.stop().await;

    // All charges so far, except for one, are now on disk alone.
    let server = setup.start();
    let clients = others.reconnected(server.address).await;
    drop(others);
    assert_eq!(clients.send(Kind::Remembered).await.status, Some(200));
    let log = server.log.clone();

    File::create(&hangs).unwrap();
    let (began, reads) = (Instant::now(), counts(&counts_file).reads);
    let ask_cold = async || futures_util::future::join_all(cold_keys.iter().map(|key| clients.send_other(key))).await;
    let (hung, memory_of_it, cold) = tokio::join!(clients.load(hang, rate), most_memory(server.id(), hang), ask_cold());
    let reads = counts(&counts_file).reads - reads;
    fs::remove_file(&hangs).unwrap();
    let returned = Instant::now();
    let mut next = 0_u64;
    let served = loop {
        next += 1;
        let came = clients.send_key(&format!("after-{next}")).await;
        if came.status == Some(200) {
            break returned.elapsed();
        }
        assert!(returned.elapsed() < GIVE_UP, "new keys stay refused: {came:?}, {}", log.text());
    };
    // The refused requests are charged now; the test takes a sample of them.
    let refused: Vec<_> = hung.refused_keys().into_iter().step_by(97).collect();
    for key in &refused {
        let again = eventually_charged(&clients, key).await;
        assert!(!again.is_replay, "{key} was refused, and had been charged");
    }
    for came in ask_cold().await {
        assert!(came.status == Some(200) && came.is_replay, "{came:?}");
    }
    // The charges are those of the loads, one that each process remembers, and the first one after the hang.
    let charges = base.charged + hung.charged + refused.len() + 3;
    let listed = server.charges().await.len();
    server.stop().await;
    let records = engine.open(&setup.data, Settings::default()).unwrap().records();

    println!(
        "hung disk on {engine}: hung for {:.1} s at {rate} new keys/s; new keys: charged {}, overloaded {}, unavailable {}; \
         served {:.0} ms after the disk's return; memory {} MiB before, at most {} MiB",
        began.elapsed().as_secs_f64() - returned.elapsed().as_secs_f64(),
        hung.charged,
        hung.overloaded,
        hung.unavailable,
        served.as_secs_f64() * 1e3,
        before >> 20,
        memory_of_it >> 20
    );
    let cold_refused = cold.iter().filter(|came| came.status == Some(503)).count();
    let cold_replayed = cold.iter().filter(|came| came.status == Some(200) && came.is_replay).count();
    println!("  replays from the disk: {cold_refused} refused, {cold_replayed} answered; reads that hung: {reads}");
    assert_eq!(cold_refused + cold_replayed, COLD, "{cold:?}");
    assert!(reads > 0 && cold_refused > 0, "nothing was read while it hung");
    let is_long = seconds.is_some();
    assert!(!is_long || served < Duration::from_secs(1), "a new key is served {served:?} after the disk's return");
    for kind in [Kind::NoKey, Kind::Remembered, Kind::Health] {
        let (base, hung) = (base.of(kind), hung.of(kind));
        println!("  {kind:?}: p99 {:.2} ms before, {:.2} ms while it hung", p99(base), p99(hung));
        assert!(!is_long || p99(hung) <= 2.0 * p99(base), "{kind:?} takes more than twice as long");
        assert!(hung.count() > 0 && hung.failed == 0, "{kind:?}: {} of {} failed", hung.failed, hung.count());
    }
    assert_eq!((hung.other, hung.unanswered), (0, 0), "every new key is charged or told to come again");
    assert!(hung.overloaded > 0 && hung.unavailable > 0, "it shows nothing: {hung:?}");
    assert_eq!(listed, charges, "what was refused took no effect");
    assert_eq!(records, charges as u64, "and left no record");
    assert!(memory_of_it < before + MORE_MEMORY, "{before} before, {memory_of_it} at most");
}

async fn eventually_charged(clients: &Clients, key: &str) -> Came {
    let began = Instant::now();
    loop {
        let came = clients.send_key(key).await;
        match came.status {
            Some(200) => return came,
            Some(409 | 503) => tokio::time::sleep(Duration::from_millis(10)).await,
            _ => panic!("{key}: {came:?}"),
        }
        assert!(began.elapsed() < GIVE_UP, "{key} stays refused: {came:?}");
    }
}

fn p99(latencies: &Latencies) -> f64 {
    latencies.percentile(99).as_secs_f64() * 1e3
}

fn word(text: &str, path: &Path) -> OsString {
    let mut word = OsString::from(text);
    word.push(path);
    word
}

fn word_of(name: &str, value: &OsString) -> OsString {
    let mut word = OsString::from(name);
    word.push("=");
    word.push(value);
    word
}

async fn most_memory(process: u32, time: Duration) -> u64 {
    let (began, mut most) = (Instant::now(), 0);
    while began.elapsed() < time {
        most = most.max(memory(process, RESIDENT));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    most
}
