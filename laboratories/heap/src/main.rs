//! Writes to four stores over the engine in the first argument, with eight tasks each, for the number of seconds in the
//! second one. Prints the number of recorded outcomes. A corrupted heap ends the program before that.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tower_idempotency::engine::EffectError;
use tower_idempotency::store::{OpenError, Store as _};
use tower_idempotency::{AnyStore, Fingerprint, FjallStore, Key, Once, RecordId, SledStore};

const STORES: usize = 4;
const TASKS: usize = 8;
const CACHE_BYTES: u64 = 8 << 20;
/// So few that fjall often writes tables and merges them.
const MEMTABLE_BYTES: u64 = 1 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [engine, seconds] = [1, 2].map(|place| std::env::args().nth(place));
    let engine = engine.ok_or("give the engine and the number of seconds")?;
    let end = Instant::now() + Duration::from_secs(seconds.ok_or("give the number of seconds")?.parse()?);
    let (mut tasks, mut stores) = (Vec::new(), Vec::new());
    for _ in 0..STORES {
        let directory = tempfile::tempdir()?;
        let store = open(&engine, directory.path())?;
        for task in 0..TASKS {
            tasks.push(tokio::spawn(write(store.clone(), task, end)));
        }
        stores.push((directory, store));
    }
    let mut recorded = 0;
    for task in tasks {
        recorded += task.await?;
    }
    for (_directory, store) in stores {
        store.close().await?;
    }
    println!("recorded {recorded}");
    Ok(())
}

fn open(engine: &str, directory: &Path) -> Result<AnyStore, OpenError> {
    match engine {
        "fjall" => {
            let store = FjallStore::builder().cache_bytes(CACHE_BYTES).memtable_bytes(MEMTABLE_BYTES);
            store.open(directory).map(AnyStore::new)
        }
        _ => SledStore::builder().cache_bytes(CACHE_BYTES).open(directory).map(AnyStore::new),
    }
}

async fn write(store: AnyStore, task: usize, end: Instant) -> usize {
    let once = Once::new(store);
    let mut recorded = 0;
    while Instant::now() < end {
        let Ok(key) = Key::new(&format!("{task}-{recorded}")) else { break };
        let effect = |_| async { Ok::<_, EffectError<std::io::Error>>(Bytes::from(vec![7; 2_000])) };
        if once.run(RecordId::new(None, &key), Fingerprint::of(b"m"), effect).await.is_ok() {
            recorded += 1;
        }
    }
    recorded
}
