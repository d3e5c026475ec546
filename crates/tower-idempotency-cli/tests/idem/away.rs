//! A database that goes away while a file is settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use testkit::proxy::{End, Fate, Pass, Proxy, Way};
use tower_idempotency::RecordId;
use tower_idempotency::store::Store as _;

use crate::program::{program, run};
use crate::redis::{durable_server, opened, url};
use crate::service::Service;

/// The changes whose results are written together: none after them is tried where the database is away.
const SLICE: usize = 200;
/// The end of each operation's id, by which the first change is noticed.
const MARK: [u8; 24] = [7; 24];

/// A way that ends for good as soon as an operation is asked for.
struct Ends(Arc<AtomicBool>);

impl Fate for Ends {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        if way == Way::Request && bytes.windows(MARK.len()).any(|part| part == MARK) {
            self.0.store(true, Ordering::SeqCst);
        }
        if self.0.load(Ordering::SeqCst) { Pass::Cut(0, End::Rst) } else { Pass::On }
    }
}

/// The id of an operation that no service has: the database is not asked about it.
fn id(number: usize) -> RecordId {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    RecordId::from_bytes(bytes)
}

// Each file around the bounds of a slice. Seeded fault: the next slices are tried although the database is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_database_goes_away_the_lines_after_the_slice_are_not_tried() {
    let Some(server) = durable_server("what is settled where the database goes away") else { return };
    // The namespace is in use.
    let store = opened(&url(&server)).await;
    Service::over(store.clone()).send("/unsure", "k1", "").await;
    for lines in [SLICE, SLICE + 1] {
        let has_ended = Arc::new(AtomicBool::new(false));
        let fate = {
            let has_ended = Arc::clone(&has_ended);
            move |_| (!has_ended.load(Ordering::SeqCst)).then(|| Ends(Arc::clone(&has_ended)))
        };
        let way = Proxy::to(server.address(), fate).await;
        let line = |number| json!({ "id": id(number).to_string(), "fence": "1", "action": "release" });
        let file: String = (0..lines).map(|number| format!("{}\n", line(number))).collect();
        let place = format!("redis://{}?namespace=payments", way.address());
        let settle = ["settle", &place, "--from", "-", "--yes", "--json"];
        let said = run(program(&settle), &file);
        assert!(has_ended.load(Ordering::SeqCst), "it was not opened: {}", said.stderr);
        let counts = said.json();
        let counts = ["done", "away", "not_tried"].map(|name| counts[name].as_u64().unwrap() as usize);
        assert_eq!(counts, [0, SLICE, lines - SLICE], "{lines} lines");
        assert_ne!(said.code, 0, "{lines} lines");
    }
    store.close().await.unwrap();
}
