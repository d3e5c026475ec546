//! The layer's service over a service with reqwest's types.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Extensions;
use reqwest::{Request, Response};
use tower::Service;

use super::calls::{Client, call};
use crate::service::{not_ready, passed_through};
use crate::{BoxError, Error, KeyedRetry};

impl<S> Service<Request> for KeyedRetry<S>
where
    S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(not_ready)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut inner = self.take_ready();
        let options = self.options.clone();
        Box::pin(async move {
            if request.method().is_safe() {
                return inner.call(request).await.map_err(passed_through);
            }
            call(&options, request, &Extensions::new(), Inner { inner, is_ready: true }).await
        })
    }
}

struct Inner<S> {
    inner: S,
    is_ready: bool,
}

impl<S> Client for Inner<S>
where
    S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send> + Send,
{
    async fn send(&mut self, request: Request) -> Result<Response, BoxError> {
        if !std::mem::take(&mut self.is_ready) {
            std::future::poll_fn(|cx| self.inner.poll_ready(cx)).await.map_err(Into::into)?;
        }
        self.inner.call(request).await.map_err(Into::into)
    }
}
