//! Writes to four stores over the engine in the first argument, and reads from them, with eight tasks each, for the
//! number of seconds in the second one. Halfway it opens the stores again. The outcomes of every other task expire
//! soon, so that stores sweep all the time. Prints how many outcomes were recorded and replayed. A corrupted heap ends
//! the program before that.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tower_idempotency::engine::EffectError;
use tower_idempotency::store::{OpenError, Store as _};
use tower_idempotency::{AnyStore, Fingerprint, FjallStore, Key, Once, RecordId, SledStore};

const STORES: usize = 4;
const TASKS: usize = 8;
const CACHE_BYTES: u64 = 8 << 20;
/// So few that most outcomes are read from the disk.
const OUTCOME_CACHE_BYTES: u64 = 1 << 20;
/// So few that fjall often writes tables and merges them.
const MEMTABLE_BYTES: u64 = 1 << 20;
/// So short that the stores sweep all the time.
const RETENTION: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [engine, seconds] = [1, 2].map(|place| std::env::args().nth(place));
    let engine = engine.ok_or("give the engine and the number of seconds")?;
    let seconds: f64 = seconds.ok_or("give the number of seconds")?.parse()?;
    let directories = (0..STORES).map(|_| tempfile::tempdir()).collect::<Result<Vec<_>, _>>()?;
    let (mut recorded, mut replayed) = (0, 0);
    // The second time, they are opened again.
    for time in 0..2 {
        let end = Instant::now() + Duration::from_secs_f64(seconds / 2.0);
        let (mut tasks, mut stores) = (Vec::new(), Vec::new());
        for directory in &directories {
            let store = open(&engine, directory.path())?;
            for task in 0..TASKS {
                tasks.push(tokio::spawn(write(store.clone(), task, time, end)));
            }
            stores.push(store);
        }
        for task in tasks {
            let counts = task.await?;
            recorded += counts.0;
            replayed += counts.1;
        }
        for store in stores {
            store.close().await?;
        }
    }
    println!("recorded {recorded}, replayed {replayed}");
    Ok(())
}

fn open(engine: &str, directory: &Path) -> Result<AnyStore, OpenError> {
    match engine {
        "fjall" => {
            let store = FjallStore::builder().cache_bytes(CACHE_BYTES).memtable_bytes(MEMTABLE_BYTES);
            store.outcome_cache_bytes(OUTCOME_CACHE_BYTES).open(directory).map(AnyStore::new)
        }
        _ => {
            let store = SledStore::builder().cache_bytes(CACHE_BYTES).outcome_cache_bytes(OUTCOME_CACHE_BYTES);
            store.open(directory).map(AnyStore::new)
        }
    }
}

/// Records outcomes, and asks for an earlier one, from the disk, after each fourth. Returns how many there were of
/// both.
async fn write(store: AnyStore, task: usize, time: usize, end: Instant) -> (usize, usize) {
    let once = if task % 2 == 0 { Once::new(store) } else { Once::new(store).retention(RETENTION) };
    let (mut sent, mut recorded, mut replayed) = (0, 0, 0);
    while Instant::now() < end {
        let run = async |time, number| {
            let key = Key::new(&format!("{task}-{time}-{number}")).ok()?;
            let effect = |_| async { Ok::<_, EffectError<std::io::Error>>("7".repeat(1_998)) };
            once.run(RecordId::new(None, &key), Fingerprint::of(b"m"), effect).await.ok()
        };
        let new = run(time, sent).await;
        recorded += usize::from(new.is_some());
        assert!(new.is_none_or(|outcome| !outcome.replayed), "a new key has no outcome");
        sent += 1;
        if sent % 4 == 0 {
            // Also one of the opening before.
            let earlier = if time == 1 && sent % 8 == 0 { run(0, replayed).await } else { run(time, sent / 2).await };
            replayed += usize::from(earlier.is_some_and(|outcome| outcome.replayed && outcome.value == "7".repeat(1_998)));
        }
    }
    (recorded, replayed)
}
