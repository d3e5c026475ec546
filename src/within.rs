//! The time limits of a write that hangs, and a time limit that costs nothing if there is nothing to wait for.
//!
//! Several parties wait for one write, each a little longer than the one before, so that the one with the most precise
//! error reports first.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use backon::ExponentialBuilder;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep_until};

/// The time by which each party gives up before the party that waits for it.
const SOONER: Duration = Duration::from_secs(5);

/// The time in which the store must answer; after it, the requester gets `store-unavailable`, or the answer of its run
/// although the store may not have recorded it.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that a store's write may take before it counts as failed: after some I/O errors an engine may wait for
/// ever.
pub(crate) const WRITE_STUCK_AFTER: Duration = Duration::from_secs(60);
/// The time that the handle of a store waits for the answer to a command.
pub(crate) const STORE_ANSWERS_WITHIN: Duration = WRITE_STUCK_AFTER.saturating_add(SOONER);
/// The time that a run waits for the answer to its transaction.
pub(crate) const COMMIT_ANSWERED_WITHIN: Duration = STORE_ANSWERS_WITHIN.saturating_add(SOONER);
/// The time that a run may take beyond `max_run` to record how it ended. It may have to wait for its transaction, and
/// to try again.
pub(crate) const END_RECORDED_WITHIN: Duration = COMMIT_ANSWERED_WITHIN.saturating_add(Duration::from_secs(20));

/// Returns the pauses before something is tried again. Each is about twice the one before, with a random part, so that
/// processes do not try at the same moment. There is no last one.
pub(crate) fn pauses(first: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest).with_jitter().without_max_times()
}

pin_project_lite::pin_project! {
    /// A future that wraps another. Its output is that of the other, or `None` if that is not ready at the deadline. If
    /// the deadline is `None`, there is no limit.
    ///
    /// It is like tokio's `Timeout`, but makes its timer only when there is something to wait for.
    pub(crate) struct Within<F> {
        #[pin]
        future: F,
        deadline: Option<Instant>,
        // The timer is polled even if the future has used up its task's budget.
        timer: Option<Pin<Box<Unconstrained<Sleep>>>>,
    }
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
        let Some(deadline) = *this.deadline else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(unconstrained(sleep_until(deadline))));
        timer.as_mut().poll(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

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
}
