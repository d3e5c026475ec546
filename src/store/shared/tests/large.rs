//! Rows that take long, for each answer of the database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::time::{advance, sleep};

use super::script::{Reply, Script, id, made_by, state, write};
use crate::store::StoreError;
use crate::store::shared::backend::{Row, Token};
use crate::store::shared::database::reads::ReadBatcher;

const SECOND: Duration = Duration::from_secs(1);

fn gets(script: &Script) -> ReadBatcher {
    ReadBatcher::start(Arc::new(script.clone()), state(), &Handle::current())
}

/// Returns the row that the script shows, as a write has met it.
fn met(number: u8) -> Row {
    Row { token: Token([0xee; 16]), ..made_by(&write(number, 0)) }
}

fn slow(reply: Reply) -> Reply {
    Reply::After(SECOND, Box::new(reply))
}

// Seeded faults: a row that was read before it changed is returned; the row is read for ever.
#[tokio::test(start_paused = true)]
async fn a_row_that_is_not_the_one_that_was_met_is_read_once_more() {
    let script = Script::of([Reply::Others, Reply::Others]);
    let known = gets(&script).get_large(&met(1)).await.unwrap();
    assert_eq!(known.row.unwrap().token, Token([0xdd; 16]), "it has changed since");
    assert_eq!(script.gets.lock().unwrap().len(), 2);
    let same = Script::default();
    assert_eq!(gets(&same).get_large(&met(1)).await.unwrap().row, Some(met(1)));
    assert_eq!(same.gets.lock().unwrap().len(), 1);
}

// Seeded faults: two rows are read at a time; a row is read once for each request.
#[tokio::test(start_paused = true)]
async fn large_rows_are_read_one_at_a_time_and_once_for_all_who_ask() {
    let script = Script::of((0..2).map(|_| slow(Reply::Done)));
    let gets = gets(&script);
    let (one, two) = (met(1), met(2));
    let all = async { tokio::join!(gets.get_large(&one), gets.get_large(&one), gets.get_large(&two)) };
    let mut all = Box::pin(all);
    assert!((&mut all).now_or_never().is_none());
    sleep(SECOND / 2).await;
    assert_eq!(*script.gets.lock().unwrap(), [[id(1)]]);
    let (one, again, two) = all.await;
    assert!(one.is_ok() && again.is_ok() && two.is_ok());
    assert_eq!(*script.gets.lock().unwrap(), [[id(1)], [id(2)]]);
}

// Seeded faults: a row that was read is dropped with its requester; it is kept for ever.
#[tokio::test(start_paused = true)]
async fn a_row_whose_requester_has_gone_is_kept_for_the_next_for_a_minute() {
    for (kept_for, calls) in [(59, 1), (61, 2)] {
        let script = Script::of([slow(Reply::Done)]);
        let gets = gets(&script);
        let row = met(1);
        let mut gone = Box::pin(gets.get_large(&row));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        sleep(2 * SECOND).await;
        advance((kept_for - 1) * SECOND).await;
        sleep(SECOND / 1_000).await;
        assert_eq!(gets.get(id(1)).await.unwrap().row.map(|row| row.id), Some(id(1)));
        assert_eq!(script.gets.lock().unwrap().len(), calls, "after {kept_for} s");
        // The kept row was taken, so the next request reads.
        gets.get(id(1)).await.unwrap();
        assert_eq!(script.gets.lock().unwrap().len(), calls + 1);
    }
}

// Seeded fault: a request waits for as long as the row takes.
#[tokio::test(start_paused = true)]
async fn a_request_for_a_row_that_is_under_way_waits_no_longer_than_for_a_small_one() {
    let script = Script::of([Reply::After(20 * SECOND, Box::new(Reply::Done))]);
    let gets = gets(&script);
    let row = met(1);
    let mut first = Box::pin(gets.get_large(&row));
    assert!((&mut first).now_or_never().is_none());
    let began = tokio::time::Instant::now();
    let error = gets.get(id(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert!(first.await.is_ok());
}
