//! Writes to four stores, with eight tasks each, for the number of seconds in the first argument. Prints the number of
//! recorded outcomes. A corrupted heap ends the program before that.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tower_idempotency::engine::EffectError;
use tower_idempotency::{Fingerprint, Key, Once, RecordId, SledStore};

const STORES: usize = 4;
const TASKS: usize = 8;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).ok_or("give the number of seconds")?.parse()?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut tasks, mut stores) = (Vec::new(), Vec::new());
    for _ in 0..STORES {
        let directory = tempfile::tempdir()?;
        let store = SledStore::builder().cache_bytes(8 << 20).open(directory.path())?;
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

async fn write(store: SledStore, task: usize, end: Instant) -> usize {
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
