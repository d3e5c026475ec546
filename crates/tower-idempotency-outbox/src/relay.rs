//! The relay: takes calls out of an outbox, and carries each to its end, which makes room for the next.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::mem::take;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use retry_policies::policies::ExponentialBackoff;
use retry_policies::{Jitter, RetryPolicy};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer as _, Service};
use tower_idempotency_client::KeyedRetryLayer;

use crate::attempt::{Terms, carry, observed};
use crate::lease::{Leased, Room};
use crate::{Observer, Outbox, TARGET};

/// How often calls that have ended are looked for, to be deleted, and those that have not are counted.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const MIN_TRY: Duration = Duration::from_millis(100);
/// A lease (`Terms::lease`) still ends within the longest wait.
const MAX_TRY: Duration = Duration::from_secs(6 * 60 * 60);
/// How long to wait after the outbox has failed.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Takes calls out of an outbox, and sends them with their keys until the server has answered.
///
/// Any number of relays may share an outbox, in one process or, where the database permits it, in several. Each call is
/// one relay's at a time, by a lease.
///
/// **The end of a lease proves nothing about the request that was sent under it.** A process that was paused, or a
/// network that was slow, may deliver it while the next relay sends it again, and after that has its answer. Only the
/// key, which is the same, makes them one operation. What a lease does is to settle which result counts: once another
/// relay has the call, the first one can't write a result any more.
///
/// `client` is a service that sends each request once and follows no redirects, such as hyper-util's `Client`. It adds
/// the credentials, and closes the connections that it does not use: hyper-util's does so only with a `pool_timer`.
/// Where it sends to a server that may send more than an answer over HTTP/1.1, let it keep no connection:
/// `pool_max_idle_per_host(0)`.
pub struct Relay<O, C> {
    outbox: O,
    client: C,
    layer: KeyedRetryLayer,
    concurrency: u16,
    poll_every: Duration,
    keep_for: Duration,
    terms: Terms,
}

impl<O: Outbox, C> Relay<O, C> {
    /// Returns a relay with the defaults, which each method names.
    #[must_use]
    pub fn new(outbox: O, client: C) -> Self {
        let backoff = ExponentialBackoff::builder()
            .retry_bounds(Duration::from_secs(1), Duration::from_secs(10 * 60))
            .jitter(Jitter::Full)
            .build_with_max_retries(u32::MAX);
        Self {
            outbox,
            client,
            layer: KeyedRetryLayer::new(),
            concurrency: 32,
            poll_every: Duration::from_secs(1),
            keep_for: Duration::from_secs(7 * 24 * 60 * 60),
            terms: Terms {
                try_for: Duration::from_secs(30),
                give_up_after: Duration::from_secs(12 * 60 * 60),
                backoff: Arc::new(backoff),
                observer: None,
            },
        }
    }

    /// Sets the layer that sends the calls: the header and the form of their keys, the timeout and the backoff within a
    /// try. The default is [`KeyedRetryLayer::new`]. Its deadline is that of [`try_for`](Self::try_for). The relay
    /// itself reads the answers that can't be rejections and are not judged, so that
    /// [`max_answer`](KeyedRetryLayer::max_answer) has no effect.
    ///
    /// For APIs that say "no" and "try again" behind a 200, set its [`judge`](KeyedRetryLayer::judge): without it, each
    /// 200 but gRPC's is a delivery.
    #[must_use]
    pub fn layer(self, layer: KeyedRetryLayer) -> Self {
        Self { layer, ..self }
    }

    /// Sets how many calls are sent at once. The default is 32; 0 counts as 1. One destination (scheme, host and port)
    /// has at most half of them, and at least one, also while no others wait, so that one that hangs does not hold up
    /// the others. Several that hang can have all of them, and so can one under several names: allow as many calls as
    /// hang at a time.
    #[must_use]
    pub fn concurrency(self, calls: u16) -> Self {
        Self { concurrency: calls.max(1), ..self }
    }

    /// Sets how often the outbox is asked for calls that are due. The default is 1 s. It is also asked whenever a call
    /// ends.
    #[must_use]
    pub fn poll_every(self, time: Duration) -> Self {
        Self { poll_every: time, ..self }
    }

    /// Sets how long a try may take, in which the layer may send the call several times. The default is 30 s; it is at
    /// least 100 ms, and at most 6 hours.
    ///
    /// A lease is three times as long, so that the try can begin late, and its result can be written. If a relay's
    /// process ends, its calls are sent again after that time.
    #[must_use]
    pub fn try_for(mut self, time: Duration) -> Self {
        self.terms.try_for = time.clamp(MIN_TRY, MAX_TRY);
        self
    }

    /// Sets how long to wait between two tries. The default is a random time between zero and a bound (full jitter)
    /// that doubles from 1 s to 10 minutes. If the server asks for more by `Retry-After`, that counts, up to a day.
    /// Where the policy permits no more tries, or the next one would come after the time of
    /// [`give_up_after`](Self::give_up_after), the call is given up at once.
    #[must_use]
    pub fn backoff(mut self, backoff: impl RetryPolicy + Send + Sync + 'static) -> Self {
        self.terms.backoff = Arc::new(backoff);
        self
    }

    /// Sets when a call is given up: so long after its first try began. The default is 12 hours.
    ///
    /// **It has to be less than the time for which the server remembers a key**, less twice the time of a try: many
    /// servers forget keys after 24 hours, and a request that comes later is a new operation. A relay that comes to a
    /// call too late, because it was down, gives it up without sending it.
    #[must_use]
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.terms.give_up_after = time;
        self
    }

    /// Sets how long calls are kept after they were delivered or refused. The default is 7 days. Those that were given
    /// up or are damaged are kept until they are settled.
    #[must_use]
    pub fn keep_for(self, time: Duration) -> Self {
        Self { keep_for: time, ..self }
    }

    /// Sets the observer, which learns how calls go. The default is none.
    #[must_use]
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.terms.observer = Some(Arc::new(observer));
        self
    }

    /// Carries calls until `shutdown` ends, and then finishes those that it has, which takes no longer than a lease and
    /// the outbox's own time limits.
    ///
    /// While the outbox fails, it asks again, and logs it. Once a minute it logs a warning if calls were tried, and
    /// none of them has come to an end.
    ///
    /// # Cancel safety
    /// If the future is dropped, requests that were sent may arrive. Their calls are sent again when their leases are
    /// over.
    #[allow(clippy::future_not_send, reason = "it is `Send` if `shutdown` is")]
    pub async fn run<A>(self, shutdown: impl Future<Output = ()>)
    where
        C: Service<Request<Full<Bytes>>, Response = Response<A>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + 'static,
        A: Body<Data: Send, Error: Into<BoxError>> + Unpin + Send + 'static,
    {
        let Self { outbox, client, layer, concurrency, poll_every, keep_for, terms } = self;
        // The layer would ask again and again for an answer that breaks off. Its status has come, and counts.
        let client = layer.deadline(terms.try_for).max_answer(0).layer(client);
        let mut shutdown = pin!(shutdown);
        let (terms, mut calls) = (Arc::new(terms), JoinSet::new());
        let (mut swept, mut counted, mut looked) = (None::<Instant>, None::<Instant>, Instant::now());
        // Calls do not wait for a count, which reads each of them.
        let mut counts = JoinSet::new();
        let mut tries = Tries::default();
        loop {
            if let Some(Err(error)) = counts.try_join_next() {
                tracing::error!(target: TARGET, %error, "the count of calls has panicked");
            }
            if let Some(observer) = &terms.observer
                && counts.is_empty()
                && counted.is_none_or(|counted| counted.elapsed() > SWEEP_EVERY)
            {
                counted = Some(Instant::now());
                counts.spawn(count(outbox.clone(), Arc::clone(observer)));
            }
            let most = concurrency.saturating_sub(u16::try_from(calls.len()).unwrap_or(u16::MAX));
            let room = Room { most, of_each: (concurrency / 2).max(1), taken: tries.taken() };
            let asked = Instant::now();
            for leased in lease(&outbox, &terms, room).await {
                let destination = leased.entry.destination.clone();
                let call = carry(outbox.clone(), client.clone(), Arc::clone(&terms), leased, asked);
                tries.destinations.insert(calls.spawn(call).id(), destination);
            }
            if swept.is_none_or(|swept| swept.elapsed() > SWEEP_EVERY) {
                swept = (!sweep(&outbox, keep_for).await).then(Instant::now);
            }
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = calls.join_next_with_id() => tries.end(ended),
                () = sleep(poll_every) => {}
            }
            while let Some(ended) = calls.try_join_next_with_id() {
                tries.end(ended);
            }
            if looked.elapsed() > SWEEP_EVERY {
                looked = Instant::now();
                if let Some((tries, reason)) = tries.all_in_vain() {
                    tracing::warn!(target: TARGET, tries, reason, "no call that was tried has come to an end");
                }
            }
        }
        while let Some(ended) = calls.join_next_with_id().await {
            tries.end(ended);
        }
    }
}

async fn lease(outbox: &impl Outbox, terms: &Terms, room: Room) -> Vec<Leased> {
    if room.most == 0 {
        return Vec::new();
    }
    match outbox.lease(terms.lease(), room).await {
        Ok(leased) => leased,
        Err(error) => {
            error.log("no calls can be taken");
            // A call that ends meanwhile is no reason to ask at once.
            sleep(ASK_AGAIN).await;
            Vec::new()
        }
    }
}

/// Returns whether there may be more.
async fn sweep(outbox: &impl Outbox, keep_for: Duration) -> bool {
    let swept = outbox.sweep(keep_for).await;
    swept.unwrap_or_else(|error| {
        error.log("the outbox can't be swept");
        false
    })
}

/// Says to the observer how many calls have not ended.
async fn count(outbox: impl Outbox, observer: Arc<dyn Observer>) {
    match outbox.open_calls().await {
        Ok(open) => observed(|| observer.counted(&open)),
        Err(error) => error.log("the calls of the outbox can't be counted"),
    }
}

/// The tries that are under way, and what has come of the others since the last look.
#[derive(Debug, Default)]
struct Tries {
    /// Where those go that are under way.
    destinations: HashMap<Id, String>,
    has_ended: bool,
    in_vain: u32,
    reason: String,
}

impl Tries {
    /// How many are under way, by their destinations.
    fn taken(&self) -> HashMap<String, u16> {
        let mut taken = HashMap::new();
        for destination in self.destinations.values() {
            *taken.entry(destination.clone()).or_default() += 1;
        }
        taken
    }

    fn end(&mut self, ended: Result<(Id, Option<String>), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.destinations.remove(&id);
        match ended {
            Ok((_, None)) => self.has_ended = true,
            Ok((_, Some(reason))) => (self.in_vain, self.reason) = (self.in_vain + 1, reason),
            // A client that panics has lost its try. The call is sent again after its lease.
            Err(error) => tracing::error!(target: TARGET, %error, "a call's task has panicked"),
        }
    }

    /// How many tries there were, and what the last one has met, if none has ended a call.
    fn all_in_vain(&mut self) -> Option<(u32, String)> {
        let (has_ended, in_vain) = (take(&mut self.has_ended), take(&mut self.in_vain));
        let reason = take(&mut self.reason);
        (in_vain > 0 && !has_ended).then_some((in_vain, reason))
    }
}

impl<O: fmt::Debug, C> fmt::Debug for Relay<O, C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Relay")
            .field("outbox", &self.outbox)
            .field("try_for", &self.terms.try_for)
            .field("give_up_after", &self.terms.give_up_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
