//! Writes that are done or not done over each row, alone and together with others.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tower_idempotency::Fence;
use tower_idempotency_shared::{Backend as _, BackendError, Clocks, Expect, Kind, NewExpiry, NewFence, Row, Write};

use crate::lab::{HOUR, Lab, claim, complete, id, is_done, lab};

/// The first number for the rows of second writes.
const ANOTHER: u64 = 1 << 32;

/// Puts a write alone, or together with another one, which takes another path in the backend.
async fn put(lab: &Lab, alone: bool, write: Write) -> Option<Row> {
    if alone {
        return lab.put(write).await;
    }
    let another = claim(id(ANOTHER + rand()));
    let answer = lab.backend.put(Clocks::default(), &[another.clone(), write]).await.unwrap();
    assert!(
        is_done(answer.rows[0].as_ref(), &another),
        "the write next to it is done, whatever the result of the other"
    );
    answer.rows[1].clone()
}

fn rand() -> u64 {
    u64::from_le_bytes(crate::lab::token().0[..8].try_into().unwrap()) >> 33
}

/// Lets a row expire.
async fn expire(lab: &Lab, number: u64) {
    lab.sql(&format!(
        "UPDATE idempotency.record SET expires = clock_timestamp() - interval '1 s' \
         WHERE namespace = '$' AND id = '\\x{}'",
        id(number)
    ))
    .await;
}

#[tokio::test]
async fn trap_97_a_write_is_done_where_what_it_expects_stands_or_its_own_token() {
    let Some(lab) = lab("which write is done").await else { return };
    for (alone, first) in [(true, 0), (false, 100)] {
        let number = |n: u64| first + n;
        let put = async |write: Write| put(&lab, alone, write).await;

        let absent = id(number(0));
        assert_eq!(put(complete(absent, crate::lab::token())).await, None, "a token is expected where there is no row");
        let first = claim(absent);
        let row = put(first.clone()).await.unwrap();
        assert_eq!((row.token, row.kind), (first.token, Kind::Running));
        assert_eq!((row.began, row.until), (row.since, Some(row.began.plus(HOUR))));

        let late = put(claim(absent)).await.unwrap();
        assert_eq!(late, row, "a claim where there is a row changes nothing");
        let stale = put(complete(absent, crate::lab::token())).await.unwrap();
        assert_eq!(stale, row, "nor does an outcome of another one's token");

        let outcome = complete(absent, row.token);
        let done = put(outcome.clone()).await.unwrap();
        assert_eq!(
            (done.token, done.kind, done.fence, done.began),
            (outcome.token, Kind::Completed, row.fence, row.began)
        );
        assert_eq!(done.until, None);

        let again = put(outcome.clone()).await.unwrap();
        assert_eq!((again.token, again.fence, again.since), (done.token, done.fence, done.since), "it was sent before");
        let superseded = put(first.clone()).await.unwrap();
        assert_eq!(superseded.token, done.token, "a claim that comes after what followed it is not done");

        // A released row is a row; an expired one is none.
        let released = id(number(1));
        let row = put(Write { kind: Kind::Released, ..claim(released) }).await.unwrap();
        assert_eq!(put(claim(released)).await.unwrap().token, row.token, "a released row is not absent");
        expire(&lab, number(1)).await;
        assert_eq!(lab.get(released).await, None);
        assert_eq!(put(complete(released, row.token)).await, None, "an expired row has no token");
        let anew = claim(released);
        let anew_row = put(anew.clone()).await.unwrap();
        assert_eq!(anew_row.token, anew.token);
        assert!(anew_row.fence > row.fence && anew_row.began >= row.began);
        assert_eq!((anew_row.kind, anew_row.began), (Kind::Running, anew_row.since));
    }
}

/// What a writer got for each row: whether its write was done, and the row that it was answered with.
type Answers = Vec<(bool, Option<Row>)>;

/// Has 16 writers, in as many tasks over four backends, make these writes at once, each for one row after the other.
async fn race(lab: &Lab, write: impl Fn(u64) -> Write + Clone + Send + 'static) -> Vec<Answers> {
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let backend = Arc::new(lab.another().await);
        for _ in 0..4 {
            let (backend, write) = (Arc::clone(&backend), write.clone());
            writers.spawn(async move {
                let mut answers = Vec::new();
                for number in 0..RACED {
                    let write = write(number);
                    let row = crate::lab::put(&*backend, write.clone()).await;
                    answers.push((is_done(row.as_ref(), &write), row));
                }
                answers
            });
        }
    }
    writers.join_all().await
}

const RACED: u64 = 400;

// Seeded fault: the outcome of whichever token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_claims_and_of_the_outcomes_that_race_for_a_row_one_is_done() {
    let Some(lab) = lab("one write of those that race is done").await else { return };
    let claims = race(&lab, |number| claim(id(number))).await;
    let mut winners = Vec::new();
    for number in 0..RACED {
        let there = lab.get(id(number)).await.unwrap();
        let answers = claims.iter().map(|answers| &answers[number as usize]);
        assert_eq!(answers.clone().filter(|(done, _)| *done).count(), 1, "claims of row {number} that were done");
        for (_, row) in answers {
            // A row that was locked at that moment is not shown.
            assert!(row.as_ref().is_none_or(|row| *row == there), "{row:?} in place of {there:?}");
        }
        winners.push(there.token);
    }
    let outcomes = race(&lab, move |number| complete(id(number), winners[number as usize])).await;
    for number in 0..RACED {
        let there = lab.get(id(number)).await.unwrap();
        assert_eq!(there.kind, Kind::Completed);
        let done = outcomes.iter().map(|answers| &answers[number as usize]).filter(|(done, _)| *done);
        let done: Vec<_> = done.filter_map(|(_, row)| row.as_ref()).map(|row| row.token).collect();
        assert_eq!(done, [there.token], "outcomes of row {number} that were done");
    }
}

#[tokio::test]
async fn trap_105_fences_are_kept_given_or_above_all_that_went_before() {
    let Some(lab) = lab("which fence a row has").await else { return };
    for (alone, first) in [(true, 0), (false, 100)] {
        let put = async |write: Write| put(&lab, alone, write).await.unwrap();
        let far = 1 << 60;
        let row = put(Write { fence: NewFence::Above(Fence(far)), ..claim(id(first)) }).await;
        assert_eq!(row.fence, Fence(far + 1), "above what the process has seen");
        let row = put(Write { fence: NewFence::Above(Fence(1)), ..complete(row.id, row.token) }).await;
        assert_eq!(row.fence, Fence(far + 2), "above the row's");
        let row = put(complete(row.id, row.token)).await;
        assert_eq!(row.fence, Fence(far + 2), "kept");
        let row = put(Write { fence: NewFence::Exactly(Fence(far + 7)), ..complete(row.id, row.token) }).await;
        assert_eq!(row.fence, Fence(far + 7), "given");
        let row = put(Write { fence: NewFence::Exactly(Fence(5)), ..complete(row.id, row.token) }).await;
        assert_eq!(row.fence, Fence(far + 7), "never less");
        let write = Write { fence: NewFence::Above(Fence(5)), ..complete(row.id, row.token) };
        let row = put(write.clone()).await;
        assert_eq!(row.fence, Fence(far + 8));
        assert_eq!(put(write).await.fence, row.fence, "sent again");
        let row = put(Write { fence: NewFence::Exactly(Fence(9)), ..claim(id(first + 1)) }).await;
        assert_eq!(row.fence, Fence(9), "given to an absent row");
        expire(&lab, first + 1).await;
        let row = put(Write { fence: NewFence::Exactly(Fence(3)), ..claim(row.id) }).await;
        assert_eq!(row.fence, Fence(9), "never less than that of an expired row");
        expire(&lab, first + 1).await;
        let row = put(Write { fence: NewFence::Keep, ..claim(row.id) }).await;
        assert!(row.fence > Fence(1 << 50), "there is none to keep in an expired row");
    }
}

#[tokio::test]
async fn a_row_that_no_database_takes_is_never_taken() {
    let Some(lab) = lab("what is never taken").await else { return };
    let never = async |write: Write| {
        let error = lab.backend.put(Clocks::default(), &[write]).await.unwrap_err();
        assert!(matches!(error, BackendError::Never(_)), "{error:?}");
    };
    never(Write { expires: NewExpiry::Keep, ..claim(id(1)) }).await;
    never(Write { fence: NewFence::Exactly(Fence(u64::MAX)), ..claim(id(1)) }).await;
    // It has the last number that there is, and the next one would be above it.
    never(Write { fence: NewFence::Above(Fence(i64::MAX as u64)), ..claim(id(1)) }).await;
    assert!(
        lab.put(Write { expect: Expect::Absent, ..claim(id(1)) }).await.is_some(),
        "the connection is as good as before"
    );
    let longest = lab.put(Write { until: Some(Duration::MAX), ..claim(id(2)) }).await.unwrap();
    assert!(longest.until > Some(longest.began.plus(Duration::from_secs(99 * 365 * 86_400))));
}
