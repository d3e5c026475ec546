//! The layer as a middleware of reqwest-middleware.

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use super::calls::{Client, call};
use crate::{BoxError, KeyedRetryLayer};

/// The layer as a middleware. What is added after it takes part in each attempt.
///
/// An error of a call with a key is [`reqwest_middleware::Error::Middleware`], and
/// [`Error::within`](crate::Error::within) finds the layer's [`Error`](crate::Error) in it. A request with a
/// safe method passes through with the errors that it has without the layer.
#[async_trait::async_trait]
impl Middleware for KeyedRetryLayer {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        if request.method().is_safe() {
            return next.run(request, extensions).await;
        }
        // What the middlewares below add to the extensions is theirs in each attempt.
        let of_call = extensions.clone();
        call(&self.options, request, &of_call, Below { next, extensions }).await.map_err(Error::middleware)
    }
}

impl crate::Error {
    /// Finds the layer's error in one of reqwest-middleware; with the feature `reqwest-retry`, also where reqwest-retry
    /// has wrapped it. `None`: the error comes from elsewhere.
    #[must_use]
    pub fn within(error: &Error) -> Option<&Self> {
        let Error::Middleware(error) = error else { return None };
        #[cfg(feature = "reqwest-retry")]
        if let Some(wrapped) = error.downcast_ref() {
            use reqwest_retry::RetryError;
            let (RetryError::Error(error) | RetryError::WithRetries { err: error, .. }) = wrapped;
            return Self::within(error);
        }
        error.downcast_ref()
    }
}

struct Below<'a> {
    next: Next<'a>,
    extensions: &'a mut Extensions,
}

impl Client for Below<'_> {
    async fn send(&mut self, request: Request) -> std::result::Result<Response, BoxError> {
        self.next.clone().run(request, self.extensions).await.map_err(|error| match error {
            // So that its kind can be seen.
            Error::Reqwest(error) => error.into(),
            error @ Error::Middleware(_) => error.into(),
        })
    }
}
