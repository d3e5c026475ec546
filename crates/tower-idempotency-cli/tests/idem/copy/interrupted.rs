//! A copy that was killed is made again.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use testkit::process::{signal, until};
use tower_idempotency::Fence;
use tower_idempotency::internals::{Origin, Record, Records as _, Reply, State};
use tower_idempotency::{Fingerprint, RecordId};

use super::{HOUR, Place};
use crate::program::{json, program};

const RECORDS: u64 = 12_000;

/// The bytes of the files in a directory that are on disk.
fn bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_killed_goes_on_when_it_is_made_again() {
    let from = Place::of("fjall");
    from.with(async |store| {
        let now = store.now();
        let record = |number: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            let record = Record {
                fence: Fence(number + 1),
                began: now,
                since: now,
                expires: Some(now.plus(HOUR)),
                fingerprint: Fingerprint::of(&id),
                attempt: 1,
                origin: Origin::default(),
                state: State::Completed { outcome: vec![1; 2_000].into() },
                owner: Default::default(),
            };
            (RecordId::from_bytes(id), record)
        };
        for start in (0..RECORDS).step_by(2_000) {
            let adopted = store.adopt((start..start + 2_000).map(record).collect()).await.unwrap();
            assert!(adopted.iter().all(|applied| applied.reply == Reply::Taken));
        }
    })
    .await;
    let to = loop {
        let to = Place::of("fjall");
        let mut copy = program(&["copy", &from.name(), &to.name()]).spawn().unwrap();
        until("some records", async || bytes(&to.path()) > 4 << 20).await;
        signal(copy.id(), "KILL");
        copy.wait().unwrap();
        let there = json(0, &["verify", &to.name()])["records"].as_u64().unwrap();
        assert!(there <= RECORDS);
        // A machine that is fast, or slow to look, may have come too late.
        if there > 0 && there < RECORDS {
            break to;
        }
    };
    let there = json(0, &["verify", &to.name()])["records"].as_u64().unwrap();
    let said = json(0, &["copy", &from.name(), &to.name()]);
    assert_eq!((said["already_there"].as_u64(), said["copied"].as_u64()), (Some(there), Some(RECORDS - there)));
    assert_eq!((&said["to"]["completed"], &said["complete"]), (&RECORDS.into(), &true.into()), "{said:#}");
}
