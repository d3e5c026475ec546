//! The time limits of a store's write that hangs, and a time limit that costs nothing if there is nothing to wait for.
//! Section 11 of `docs/design.md` has all limits that a request can meet.
//!
//! Several parties wait for one write, each a little longer than the one before, so that the one that knows the most
//! about it gives up first.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use backon::ExponentialBuilder;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep_until};

/// The time by which each party gives up before the party that waits for it.
const SOONER: Duration = Duration::from_secs(5);

/// The time in which a store must answer a claim; after it, the requester gets `store-unavailable`. A shared store must
/// answer an end in this time, too; after it, the requester gets the answer of its run although the database may not
/// have recorded it. The handle of an embedded store waits for [`STORE_ANSWER_TIMEOUT`] for the answer to an end.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that a store's write may take before it counts as failed: after some I/O errors an engine may wait for
/// ever.
pub(crate) const WRITE_STUCK_AFTER: Duration = Duration::from_secs(60);
/// The time that the handle of a store waits for the answer to a command.
pub(crate) const STORE_ANSWER_TIMEOUT: Duration = WRITE_STUCK_AFTER.saturating_add(SOONER);
/// The time that a run waits for the answer to its transaction.
pub(crate) const COMMIT_TIMEOUT: Duration = STORE_ANSWER_TIMEOUT.saturating_add(SOONER);
/// The time that a run may take beyond `max_run` to record how it ended. It may have to wait for its transaction, and
/// to try again.
pub(crate) const END_TIMEOUT: Duration = COMMIT_TIMEOUT.saturating_add(Duration::from_secs(20));

/// A timer that is late by this much shows that the process did not run: it was stopped, or the machine was suspended.
/// What it waits for may have come meanwhile, and gets as long to show.
pub(crate) const STOPPED_AFTER: Duration = Duration::from_secs(1);

/// Returns the end of a limit that was over at `deadline`, if the process did not run at that time.
pub(crate) fn put_off(deadline: Instant) -> Option<Instant> {
    (deadline.elapsed() >= STOPPED_AFTER).then(|| Instant::now() + STOPPED_AFTER)
}

/// Returns the pauses before something is tried again. Each is about twice the one before, with a random part, so that
/// processes do not try at the same moment. There is no last one.
#[must_use]
pub fn pauses(first: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest).with_jitter().without_max_times()
}

pin_project_lite::pin_project! {
    /// A future that wraps another. Its output is that of the other, or `None` if that is not ready at the deadline. If
    /// the deadline is `None`, there is no limit. If the process did not run at the deadline, it is [put off](put_off)
    /// once.
    ///
    /// It is like tokio's `Timeout`, but makes its timer only when there is something to wait for.
    pub(crate) struct Within<F> {
        #[pin]
        future: F,
        // `None`: there is no limit, or it is not put off any more.
        deadline: Option<Instant>,
        // The timer is polled even if the future has used up its task's budget.
        timer: Option<Pin<Box<Unconstrained<Sleep>>>>,
    }
}

fn timer_until(deadline: Instant) -> Pin<Box<Unconstrained<Sleep>>> {
    Box::pin(unconstrained(sleep_until(deadline)))
}

/// Limits a future: it has to be ready by `deadline`.
pub(crate) fn within<F: Future>(deadline: Option<Instant>, future: F) -> Within<F> {
    Within { future, deadline, timer: None }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // An output that is there counts even after the deadline.
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        let timer = match (this.timer.as_mut(), *this.deadline) {
            (Some(timer), _) => timer,
            (None, None) => return Poll::Pending,
            (None, Some(deadline)) => {
                // What begins after its deadline has no time.
                *this.deadline = Some(deadline).filter(|deadline| *deadline > Instant::now());
                this.timer.insert(timer_until(deadline))
            }
        };
        ready!(timer.as_mut().poll(cx));
        if let Some(later) = this.deadline.take().and_then(put_off) {
            *timer = timer_until(later);
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use futures_util::poll;
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_is_given_even_after_the_deadline_and_nothing_else() {
        let past = Some(Instant::now() - Duration::from_secs(1));
        assert_eq!(within(past, ready(1)).await, Some(1));
        assert_eq!(within(past, pending::<()>()).await, None);
        let soon = Some(Instant::now() + Duration::from_secs(1));
        assert_eq!(within(soon, pending::<()>()).await, None);
        let later = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            2
        };
        assert_eq!(within(None, later).await, Some(2));
    }

    // Seeded faults: the limit is not put off; it is put off again; a timer that is a little late puts it off.
    #[tokio::test(start_paused = true)]
    async fn a_limit_that_was_over_while_the_process_did_not_run_is_put_off_once() {
        for (stopped, expected) in [(1_999, None), (2_000, Some(3)), (60_000, Some(3))] {
            let mut came = pin!(within(Some(Instant::now() + Duration::from_secs(1)), async {
                sleep(Duration::from_millis(stopped + 500)).await;
                3
            }));
            assert!(poll!(came.as_mut()).is_pending());
            advance(Duration::from_millis(stopped)).await;
            assert_eq!(came.await, expected, "{stopped}");
        }
        let mut never = pin!(within(Some(Instant::now() + Duration::from_secs(1)), pending::<()>()));
        for (stopped, expected) in [(10, Poll::Pending), (10, Poll::Ready(None))] {
            assert!(poll!(never.as_mut()).is_pending());
            advance(Duration::from_secs(stopped)).await;
            assert_eq!(poll!(never.as_mut()), expected);
        }
    }
}
