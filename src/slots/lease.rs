//! Until when this process counts as alive for the others that share its store. A run asks twice: which session it is
//! claimed in, and while it runs whether that is nearly over.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::key::RecordId;

/// The lease of this process. A store that this process has alone has none.
#[derive(Debug, Default)]
pub struct Lease {
    /// `None` until a shared store has begun its session.
    held: Mutex<Option<HeldLease>>,
    /// Notifies the runs of the session before that this process has another one.
    replaced: Notify,
}

#[derive(Debug, Clone, Copy)]
struct HeldLease {
    session: RecordId,
    /// Other processes count this one as alive until then, at least.
    until: Instant,
    /// The time before the lease's end at which a run that others may take over has to stop.
    margin: Duration,
}

impl Lease {
    /// Takes note that the lease of `session` is held until this moment, at least.
    pub fn hold(&self, session: RecordId, until: Instant, margin: Duration) {
        let before = self.held.lock().replace(HeldLease { session, until, margin });
        if before.is_some_and(|before| before.session != session) {
            self.replaced.notify_waiters();
        }
    }

    /// Returns the session that has the lease. A run that is claimed from now on has this one, or a later one.
    #[must_use]
    pub fn session(&self) -> Option<RecordId> {
        self.held.lock().map(|held| held.session)
    }

    /// Returns how much of the lease of `session` is left: nothing if this process has another session now.
    #[must_use]
    pub fn left(&self, session: RecordId) -> Duration {
        let held = self.held.lock().filter(|held| held.session == session);
        held.map_or(Duration::ZERO, |held| held.until.saturating_duration_since(Instant::now()))
    }

    /// Waits until the lease of `session` is nearly over and was not renewed, or this process has another session.
    pub(crate) async fn nearly_over(&self, session: RecordId) {
        let (mut timer, mut replaced) = (pin!(sleep_until(Instant::now())), pin!(self.replaced.notified()));
        // Each poll looks at the clock. In a process that was paused, another event may come before the timer's.
        poll_fn(|cx| {
            // The notification is armed again before the lease is read, so none is missed.
            while replaced.as_mut().poll(cx).is_ready() {
                replaced.set(self.replaced.notified());
            }
            let Some(held) = self.held.lock().filter(|held| held.session == session) else { return Poll::Ready(()) };
            let end = held.until.checked_sub(held.margin).unwrap_or(held.until);
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            if timer.deadline() != end {
                timer.as_mut().reset(end);
            }
            timer.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use futures_util::FutureExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn session(number: u8) -> RecordId {
        RecordId::from_bytes([number; 32])
    }

    fn held() -> Lease {
        let lease = Lease::default();
        lease.hold(session(1), Instant::now() + SECOND * 30, SECOND * 5);
        lease
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_nearly_over_by_its_margin_before_its_end_unless_it_is_renewed() {
        let (lease, begin) = (held(), Instant::now());
        lease.nearly_over(session(1)).await;
        assert_eq!(begin.elapsed(), SECOND * 25);
        let lease = held();
        let mut over = pin!(lease.nearly_over(session(1)));
        for _ in 0..3 {
            assert!(over.as_mut().now_or_never().is_none());
            tokio::time::advance(SECOND * 24).await;
            assert!(over.as_mut().now_or_never().is_none());
            lease.hold(session(1), Instant::now() + SECOND * 30, SECOND * 5);
        }
        tokio::time::advance(SECOND).await;
        assert!(over.as_mut().now_or_never().is_none());
        let begin = Instant::now();
        let replaced = async { lease.hold(session(2), Instant::now() + SECOND * 30, SECOND * 5) };
        futures_util::future::join(over, replaced).await;
        assert_eq!(begin.elapsed(), Duration::ZERO, "it does not wait for the end of the lease that was replaced");
        assert_eq!(lease.left(session(2)), SECOND * 30, "the run of another session is over at once");
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_session_s_lease_is_not_that_of_a_session_that_was_lost() {
        let lease = held();
        assert_eq!(lease.left(session(1)), SECOND * 30);
        lease.hold(session(2), Instant::now() + SECOND * 60, SECOND);
        assert_eq!([1, 2].map(|number| lease.left(session(number))), [Duration::ZERO, SECOND * 60]);
    }

    // A process that was paused is polled before its timers are looked at, if another thread wakes the run.
    #[tokio::test(start_paused = true)]
    async fn that_a_lease_is_over_is_seen_at_each_poll_and_not_only_when_a_timer_fires() {
        let lease = held();
        let mut over = pin!(lease.nearly_over(session(1)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(over.as_mut().poll(&mut cx).is_pending());
        // The timer of the first poll has 25 s to go.
        lease.hold(session(1), Instant::now() + SECOND * 4, SECOND * 5);
        assert!(over.as_mut().poll(&mut cx).is_ready());
    }
}
