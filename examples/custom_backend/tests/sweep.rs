//! The test of a sweep after ten minutes of grace. The suite can't wait for that long, so the test makes rows older
//! instead.

use custom_backend::SqliteBackend;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{Backend as _, Clocks, Expect, Kind, NewExpiry, NewFence, Stamp, Token, Write};

fn claim(number: u8) -> Write {
    Write {
        id: RecordId::from_bytes([number; 32]),
        expect: Expect::Absent,
        token: Token([number; 16]),
        fence: NewFence::Above(Fence(0)),
        kind: Kind::Running,
        session: None,
        until: None,
        began: Stamp::Now,
        since: Stamp::Now,
        expires: NewExpiry::In(std::time::Duration::from_secs(60)),
        state: Vec::new().into(),
    }
}

#[tokio::test]
async fn rows_past_their_grace_are_deleted_in_slices() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records");
    let backend = SqliteBackend::open(&path).unwrap();
    let writes: Vec<Write> = (0..9).map(claim).collect();
    backend.put(Clocks::default(), &writes).await.unwrap();
    assert_eq!(backend.delete_expired(Clocks::default(), 100).await.unwrap(), 0);

    let file = rusqlite::Connection::open(&path).unwrap();
    // The rows become older by a minute and the grace, except for two of them. Then one becomes five seconds younger
    // again.
    file.execute("UPDATE idempotency SET expires = expires - 660001 WHERE substr(id, 1, 1) > x'01'", []).unwrap();
    file.execute("UPDATE idempotency SET expires = expires + 5000 WHERE substr(id, 1, 1) = x'08'", []).unwrap();
    let mut deleted = Vec::new();
    for _ in 0..4 {
        deleted.push(backend.delete_expired(Clocks::default(), 4).await.unwrap());
    }
    assert_eq!(deleted, [4, 2, 0, 0]);
    let left = file.query_row("SELECT count(*) FROM idempotency", [], |columns| columns.get::<_, i64>(0)).unwrap();
    assert_eq!(left, 3);
}
