//! The result of a read, for each answer of the database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tower_idempotency::store::StoreError;

use super::script::{Reply, Script, error, id, state};
use crate::backend::{BackendError, ServerId};
use crate::database::reads::{ReadBatcher, Reads};

fn gets(script: &Script) -> ReadBatcher {
    ReadBatcher::start(Reads::Whole, Arc::new(script.clone()), state(), &Handle::current())
}

// Seeded faults: a row is read once for each request; a call has more rows; a request gets another request's row.
#[tokio::test(start_paused = true)]
async fn reads_at_once_go_together_and_each_row_is_read_once() {
    let script = Script::default();
    let gets = gets(&script);
    let all = join_all((0..200_u8).map(|number| gets.get(id(number % 100)))).await;
    for (number, known) in (0..200_u8).zip(all) {
        let known = known.unwrap();
        assert_eq!((known.row.unwrap().id, known.server), (id(number % 100), Some(ServerId(1))));
    }
    let calls = script.gets.lock().unwrap();
    assert!(calls.iter().all(|ids| ids.len() <= 64), "{calls:?}");
    assert!(calls.len() <= 4, "{} calls", calls.len());
    for ids in &*calls {
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }
}

// Seeded faults: a read is sent again; an answer that lacks a row is accepted; a crowded call says that the database is
// away.
#[tokio::test(start_paused = true)]
async fn a_read_that_fails_is_not_sent_again_and_says_why() {
    for (reply, is_crowded) in [
        (error(BackendError::Nothing), false),
        (error(BackendError::Uncertain), false),
        (Reply::Short, false),
        (error(BackendError::Crowded), true),
    ] {
        let script = Script::of([reply]);
        let error = gets(&script).get(id(1)).await.unwrap_err();
        assert_eq!(matches!(error, StoreError::Overloaded { .. }), is_crowded, "{error:?}");
        let is_away = error.to_string().contains("the database does not answer");
        assert_eq!(is_away, !is_crowded, "{error:?}");
        assert_eq!(script.gets.lock().unwrap().len(), 1);
    }
}

// Seeded faults: one call at a time; three at a time.
#[tokio::test(start_paused = true)]
async fn two_reads_are_under_way_at_a_time() {
    let second = Duration::from_secs(1);
    let script = Script::of((0..3).map(|_| Reply::After(second, Box::new(Reply::Done))));
    let gets = gets(&script);
    let began = Instant::now();
    let later = |number: u8| {
        let gets = &gets;
        async move {
            tokio::time::sleep(Duration::from_millis(u64::from(number))).await;
            gets.get(id(number)).await.unwrap();
            began.elapsed().as_millis()
        }
    };
    assert_eq!(tokio::join!(later(1), later(2), later(3)), (1_001, 1_002, 2_001));
}
