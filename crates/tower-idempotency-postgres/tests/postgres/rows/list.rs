//! The list that operators see.

use tower_idempotency::RecordId;
use tower_idempotency::store::shared::{Backend as _, Clocks, Kind, Write};

use crate::lab::{Lab, claim, id, lab};

/// The number of the session that counts as alive.
const ALIVE: u64 = 100;

/// All of the list, page by page, where this session counts as alive.
async fn pages(lab: &Lab, size: usize) -> Vec<RecordId> {
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = lab.backend.list(Clocks::default(), &[id(ALIVE), id(103)], after, size).await.unwrap().rows;
        assert!(page.len() <= size);
        let Some(last) = page.last() else { return seen };
        after = Some((last.began, last.id));
        seen.extend(page.iter().map(|row| row.id));
    }
}

#[tokio::test]
async fn the_list_is_complete_and_in_order_though_all_began_at_once() {
    let Some(lab) = lab("that the list is complete").await else { return };
    let interrupted = |number| Write { kind: Kind::Interrupted, ..claim(id(number)) };
    // One call: they began in the same millisecond.
    lab.backend.put(Clocks::default(), &(0..50).rev().map(interrupted).collect::<Vec<_>>()).await.unwrap();
    lab.put(Write { kind: Kind::Disputed, ..claim(id(50)) }).await;
    for size in [1, 7, 100] {
        assert_eq!(pages(&lab, size).await, (0..=50).map(id).collect::<Vec<_>>(), "{size}");
    }
    assert_eq!(pages(&Lab::new(&lab.url).await, 10).await, [], "of another namespace");
}

#[tokio::test]
async fn a_run_is_listed_when_nobody_is_alive_to_see_to_it() {
    let Some(lab) = lab("which runs are listed").await else { return };
    let (alive, dead) = (id(ALIVE), id(101));
    let past = Some(std::time::Duration::ZERO);
    let owned = |number, owner| Write { session: owner, ..claim(id(number)) };
    let writes = [
        owned(1, Some(alive)),
        owned(2, Some(dead)),
        owned(3, Some(id(102))),
        owned(4, None),
        Write { until: past, ..owned(5, Some(alive)) },
        Write { until: None, ..owned(6, Some(alive)) },
        Write { kind: Kind::Completed, ..owned(7, Some(dead)) },
        Write { kind: Kind::Released, ..owned(8, Some(dead)) },
        Write { kind: Kind::Interrupted, ..owned(9, Some(alive)) },
    ];
    lab.backend.put(Clocks::default(), &writes).await.unwrap();
    let expected: Vec<_> = [2, 3, 4, 5, 6, 9].map(id).into();
    assert_eq!(pages(&lab, 2).await, expected);
    lab.sql("UPDATE idempotency.record SET expires = clock_timestamp() WHERE namespace = '$' AND kind = 2").await;
    assert_eq!(pages(&lab, 100).await, expected[..5], "an expired row is none");
}
