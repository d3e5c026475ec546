//! fjall's worker fails to sync the journal. It releases the journal before it poisons the database; until then others
//! write, and a sync by fjall's descriptor succeeds, because that has reported the failure already. The kernel may have
//! dropped what it could not write. So nothing may be acknowledged after the failure.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use laboratories::disk::{live, quick_directory, this_program};
use laboratories::engine::{Engine, Settings};
use tower_idempotency::engine::EffectError;
use tower_idempotency::store::{Health, Store as _};
use tower_idempotency::{AnyStore, Fingerprint, Once, RecordId};

const TEST: &str = "worker::nothing_is_acknowledged_after_a_failed_sync_of_fjalls_worker";
/// The variable that has the store's directory, in the process under the preloaded library.
const DATA: &str = "DISK_FAULTS_WORKER";
const BOUND: Duration = Duration::from_secs(60);
/// More than the store keeps in memory before fjall's worker writes it to a table.
const LARGE: usize = 768 << 10;
/// The exit codes of the process: the opening failed; what came after the worker's failure was refused.
const NOT_OPENED: i32 = 3;
const REFUSED: i32 = 4;

// Seeded fault: the store syncs by fjall's own descriptor, and the second operation is acknowledged.
#[test]
fn nothing_is_acknowledged_after_a_failed_sync_of_fjalls_worker() {
    if let Some(data) = std::env::var_os(DATA) {
        go_on_after_the_failure(&PathBuf::from(data));
    }
    if !Engine::chosen().contains(&Engine::Fjall) {
        return;
    }
    // fjall syncs a journal some times when it opens it. The next sync is the worker's.
    let code = (1..).map(fail).find(|code| *code != NOT_OPENED);
    assert_eq!(code, Some(REFUSED));
}

/// Returns the exit code of a process in which fjall's `n`-th sync of a journal fails.
fn fail(n: u64) -> i32 {
    let directory = quick_directory();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut command = this_program(TEST, &data);
    command.env(DATA, data.canonicalize().unwrap()).env("DISK_PRELOAD_FAULT", format!("journal {n} once:5"));
    let (status, said) = live(command, directory.path(), BOUND);
    status.and_then(|status| status.code()).unwrap_or_else(|| panic!("sync {n}: {status:?}\n{said}"))
}

fn go_on_after_the_failure(data: &Path) -> ! {
    let (fails, failed) = channel();
    log::set_boxed_logger(Box::new(HoldsUp { fails })).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    let settings = Settings { is_small: true, ..Settings::default() };
    let Ok(store) = Engine::Fjall.open(data.join("store"), settings) else { exit(NOT_OPENED) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(charge(&store.any(), 1, LARGE)).expect("nothing has failed yet");
    failed.recv().expect("the worker says that it fails");
    let answer = runtime.block_on(charge(&store.any(), 2, 1));
    let health = store.any().health();
    assert!(answer.is_err() && matches!(health, Health::Poisoned { .. }), "{answer:?}, {health:?}");
    exit(REFUSED);
}

/// Runs an operation with an outcome of so many bytes. Returns what was acknowledged.
async fn charge(store: &AnyStore, key: u8, bytes: usize) -> Result<usize, String> {
    let (id, fingerprint) = (RecordId::from_bytes([key; 32]), Fingerprint::of(&[key]));
    let effect = move |_| async move { Ok::<_, EffectError<String>>("1".repeat(bytes)) };
    let outcome = Once::new(store.clone()).run(id, fingerprint, effect).await;
    outcome.map(|outcome| outcome.value.len()).map_err(|error| error.to_string())
}

/// A logger that holds up the thread that logs an error, for as long as the process lives. fjall's worker logs its
/// failure before it poisons the database.
struct HoldsUp {
    fails: Sender<()>,
}

impl log::Log for HoldsUp {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() == log::Level::Error && metadata.target().starts_with("fjall")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) && record.args().to_string().starts_with("Worker #") {
            let _ = self.fails.send(());
            loop {
                thread::park();
            }
        }
    }

    fn flush(&self) {}
}
