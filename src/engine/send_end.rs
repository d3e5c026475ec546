//! Passes the end of a run to a store until the store has answered. In the engine, only this file passes an end more
//! than once; a store may send the writes of one again.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until};

use crate::key::RecordId;
use crate::record::{Stepped, Transition};
use crate::store::{Health, Store, StoreError};
use crate::timeouts::{STORE_TIMEOUT, pauses, within};

/// The number of tries while a requester waits.
const TRIES: usize = 3;
/// The first pause between two tries: `FIRST_PAUSE` while a requester waits, `FIRST_BACKGROUND_PAUSE` afterwards. Each
/// pause is about twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const FIRST_BACKGROUND_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The pause between two checks whether a database that was away is back.
const HEALTH_CHECK_EVERY: Duration = Duration::from_secs(1);

/// A transition of which it is not known yet whether the store has recorded or refused it.
pub(crate) struct PendingEnd {
    /// The last error. [`StoreError::Uncertain`] if the transition may have been done.
    pub(crate) error: StoreError,
    /// Goes on, and resolves to the store's answer. `None` if this process can't learn it: the store was poisoned or
    /// closed, or the time is over. If this is dropped, the transition is not passed again.
    pub(crate) answer: BoxFuture<'static, Option<Stepped>>,
}

/// Passes a transition that ends a run, or settles an operation. Over a store that several processes share it waits for
/// at most [`STORE_TIMEOUT`]. What is unknown then can be waited for, for `at_most` this long.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
pub(crate) fn pass<St: Store>(
    store: &Arc<St>,
    id: RecordId,
    transition: Transition,
    at_most: Duration,
) -> impl Future<Output = Result<Stepped, PendingEnd>> + Send {
    async move {
        let began = Instant::now();
        let (error, under_way) = if store.is_exclusive() {
            // It limits the time of each try itself, or answers at once.
            let error = match store.apply(id, transition.clone()).await {
                Ok(applied) => return Ok(applied),
                Err(error) => error,
            };
            match Box::pin(try_again(&**store, id, &transition, error)).await {
                Ok(applied) => return Ok(applied),
                Err(error) => (error, None),
            }
        } else {
            let (shared, ending) = (Arc::clone(store), transition.clone());
            let mut trying = Box::pin(async move { tries(&*shared, id, &ending).await });
            match within(Some(began + STORE_TIMEOUT), trying.as_mut()).await {
                Some(Ok(applied)) => return Ok(applied),
                Some(Err(error)) => (error, None),
                // The tries go on in `PendingEnd::answer`.
                None => (StoreError::uncertain("the database has not answered yet"), Some(trying)),
            }
        };
        let store = Arc::clone(store);
        let answer = async move {
            // The tries under way end first, so that the transition is not passed twice at a time.
            if let Some(trying) = under_way
                && let Ok(applied) = trying.await
            {
                return Some(applied);
            }
            let left = at_most.saturating_sub(began.elapsed());
            until_answered(&*store, id, || transition.clone(), FIRST_BACKGROUND_PAUSE, left).await
        };
        Err(PendingEnd { error, answer: Box::pin(answer) })
    }
}

/// Passes a transition a few times. A shared store needs this too: by itself it sends a write again only if the answer
/// was lost, the row is locked or this process is crowded. If it can't read the row, or the database certainly has not
/// done the write, it returns an error.
async fn tries<St: Store>(store: &St, id: RecordId, transition: &Transition) -> Result<Stepped, StoreError> {
    match store.apply(id, transition.clone()).await {
        Err(error) => Box::pin(try_again(store, id, transition, error)).await,
        applied => applied,
    }
}

/// Passes a transition again after its first try returned `error`. Returns the last error if no try succeeds.
async fn try_again<St: Store>(
    store: &St,
    id: RecordId,
    transition: &Transition,
    mut error: StoreError,
) -> Result<Stepped, StoreError> {
    for pause in pauses(FIRST_PAUSE, MAX_PAUSE).build().take(TRIES - 1) {
        if !may_recover(store) {
            break;
        }
        wait(store, pause).await;
        match store.apply(id, transition.clone()).await {
            // An earlier try may have been done, whatever this one returned.
            Err(again) if matches!(error, StoreError::Uncertain { .. }) => {
                error = StoreError::uncertain(again.to_string());
            }
            // The earlier tries did nothing.
            Err(again) => error = again,
            applied => return applied,
        }
    }
    Err(error)
}

/// Passes the transition that `transition` returns until the store answers; the `first` time after this pause. Returns
/// `None` if the store can't answer any more, or has not done so in `at_most` this long.
pub(crate) async fn until_answered<St: Store>(
    store: &St,
    id: RecordId,
    transition: impl Fn() -> Transition,
    first: Duration,
    at_most: Duration,
) -> Option<Stepped> {
    let began = Instant::now();
    for pause in iter::once(first).chain(pauses(FIRST_BACKGROUND_PAUSE, MAX_PAUSE).build()) {
        if !may_recover(store) || began.elapsed().saturating_add(pause) >= at_most {
            return None;
        }
        wait(store, pause).await;
        if let Ok(applied) = store.apply(id, transition()).await {
            return Some(applied);
        }
    }
    // This is not reached, because there is no last pause.
    None
}

/// Waits before the next try: for this long, or until a database that is away is back.
async fn wait<St: Store>(store: &St, pause: Duration) {
    let is_away = || matches!(store.health(), Health::Away { .. });
    if !is_away() {
        return sleep(pause).await;
    }
    let end = Instant::now() + pause;
    while is_away() && Instant::now() < end {
        sleep_until(end.min(Instant::now() + HEALTH_CHECK_EVERY)).await;
    }
}

/// Returns whether a store that failed may work again within this process.
fn may_recover<St: Store>(store: &St) -> bool {
    !matches!(store.health(), Health::Poisoned { .. } | Health::Closed)
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::record::Fence;
    use crate::test_util::{StoreCall, TestStore};

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn an_end_is_passed_again_until_its_time_is_over_and_not_to_a_store_that_is_gone() {
        let (store, id) = (TestStore::new(), RecordId::from_bytes([1; 32]));
        (0..10_000).for_each(|_| store.fail_next(StoreCall::Release));
        let release = || Transition::Release(Fence(1));
        let began = Instant::now();
        assert_eq!(until_answered(&store, id, release, FIRST_BACKGROUND_PAUSE, HOUR).await, None);
        let tried = began.elapsed();
        assert!(tried <= HOUR && tried >= HOUR - 2 * MAX_PAUSE, "{tried:?}");
        store.crash();
        assert_eq!(until_answered(&store, id, release, FIRST_BACKGROUND_PAUSE, HOUR).await, None);
        assert_eq!(began.elapsed(), tried);
    }
}
