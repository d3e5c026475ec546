//! A strategy for reqwest-retry that leaves the layer's calls alone.

use std::fmt;

use reqwest::Response;
use reqwest_middleware::Error;
use reqwest_retry::{DefaultRetryableStrategy, Retryable, RetryableStrategy};

use crate::Delivery;

/// A strategy for reqwest-retry that repeats no call of the layer.
///
/// A strategy sees neither the method nor the body. By itself, reqwest-retry gives up on a 409 whose charge still runs,
/// and repeats a recorded 500 until its policy ends. So the layer goes below it: it retries the calls with a key, as a
/// rejection's `retry_with_same_key` says. This strategy leaves them as they are, and asks another strategy about
/// everything else: requests with a safe method, which the layer passes through.
///
/// ```
/// use reqwest::redirect::Policy;
/// use reqwest_middleware::ClientBuilder;
/// use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
/// use tower_idempotency_client::{KeyedRetryLayer, KeyedStrategy};
///
/// # fn build() -> Result<(), reqwest::Error> {
/// let client = reqwest::Client::builder().redirect(Policy::none()).build()?;
/// let policy = ExponentialBackoff::builder().build_with_max_retries(3);
/// let client = ClientBuilder::new(client)
///     // The retries of safe requests; the order matters.
///     .with(RetryTransientMiddleware::new_with_policy_and_strategy(policy, KeyedStrategy::new()))
///     // The retries of all others, for up to its `deadline`.
///     .with(KeyedRetryLayer::new().without_redirects())
///     .build();
/// # Ok(()) }
/// ```
///
/// **Without the layer below, it protects nothing**: a POST is repeated as the other strategy says, and without a key.
///
/// reqwest-retry wraps each error; [`Error::within`](crate::Error::within) finds the layer's. It takes no streams: send
/// those with a client that has the layer alone.
pub struct KeyedStrategy<S = DefaultRetryableStrategy> {
    others: S,
}

impl KeyedStrategy {
    /// Creates a strategy that asks [`DefaultRetryableStrategy`] about what the layer has passed through.
    #[must_use]
    pub fn new() -> Self {
        Self::with_others(DefaultRetryableStrategy)
    }
}

impl Default for KeyedStrategy {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for KeyedStrategy<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyedStrategy").finish_non_exhaustive()
    }
}

impl<S> KeyedStrategy<S> {
    /// Creates a strategy that asks `others` about what the layer has passed through.
    #[must_use]
    pub fn with_others(others: S) -> Self {
        Self { others }
    }
}

impl<S: RetryableStrategy> RetryableStrategy for KeyedStrategy<S> {
    fn handle(&self, result: &Result<Response, Error>) -> Option<Retryable> {
        let is_of_call = match result {
            Ok(answer) => answer.extensions().get::<Delivery>().is_some(),
            Err(error) => crate::Error::within(error).is_some(),
        };
        if is_of_call { None } else { self.others.handle(result) }
    }
}
