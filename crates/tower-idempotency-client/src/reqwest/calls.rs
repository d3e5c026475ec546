//! One call with reqwest's types: its attempts, over a service or over the middlewares below.

use std::future::Future;
use std::sync::Arc;

use http::{Extensions, Response};
use http_body_util::Full;
use reqwest::{Body, Request, ResponseBuilderExt as _, Url};

use crate::attempts::{Attempts, Call, PROBE};
use crate::options::Options;
use crate::service::invalid_key;
use crate::transport::Miss;
use crate::uses::{Use, Uses};
use crate::{BoxError, Error, Key};

/// What sends a request once: a service, or the middlewares below.
pub(super) trait Client: Send {
    fn send(&mut self, request: Request) -> impl Future<Output = Result<reqwest::Response, BoxError>> + Send;
}

/// Makes a call. `extensions` are what the application says of it.
pub(super) async fn call(
    options: &Arc<Options>,
    mut request: Request,
    extensions: &Extensions,
    client: impl Client,
) -> Result<reqwest::Response, Error> {
    let key = options.key(request.headers_mut(), extensions).map_err(invalid_key)?;
    let calls = Calls {
        client,
        url: request.url().clone(),
        request: Some(request),
        has_redirects: options.has_redirects,
        is_elsewhere: false,
    };
    let answer = Call::new(options.clone(), key, calls).make().await?;
    Ok(answer.map(Body::wrap).into())
}

/// The attempts of a call.
struct Calls<C> {
    client: C,
    url: Url,
    /// The request, until it is sent for the last time.
    request: Option<Request>,
    has_redirects: bool,
    /// Whether the last answer has come after a redirect.
    is_elsewhere: bool,
}

impl<C: Client> Attempts for Calls<C> {
    type Body = Body;

    async fn send(&mut self, is_probe: bool) -> Result<Response<Body>, Box<Miss>> {
        let copy = self.request.as_ref().and_then(Request::try_clone);
        let Some(mut request) = copy.or_else(|| self.request.take()) else {
            return Err(Miss::unsendable("the body was sent already".into()));
        };
        request.headers_mut().extend(is_probe.then_some(PROBE));
        let answer = self.client.send(request).await.map_err(|error| missed(error, &self.url))?;
        let url = answer.url().clone();
        // An answer that a service in process has made has no URL of its own.
        self.is_elsewhere = self.has_redirects && url != self.url;
        // The conversion loses the URL, which reqwest keeps in an extension that only this builder makes.
        let (with_url, ()) = Response::builder().url(url).body(()).unwrap_or_default().into_parts();
        let mut answer = Response::from(answer);
        answer.extensions_mut().extend(with_url.extensions);
        Ok(answer)
    }

    fn describe(&self, uses: &Uses, key: &Key) -> Option<Use> {
        let request = self.request.as_ref()?;
        // What is no URI is refused by reqwest.
        let uri = request.url().as_str().parse().unwrap_or_default();
        // `None`: a stream.
        let body = request.body().map_or(Some(&[][..]), Body::as_bytes).map(Full::new);
        Some(uses.describe(key, (request.method(), &uri, request.headers()), body))
    }

    fn can_repeat(&self) -> bool {
        self.request.is_some()
    }

    fn has_redirects(&self) -> bool {
        self.has_redirects
    }

    fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }
}

/// Judges an error of the client's. Middlewares have errors of their own, and of other requests.
fn missed(error: BoxError, url: &Url) -> Box<Miss> {
    match error.downcast_ref::<reqwest::Error>() {
        Some(of_reqwest) if of_reqwest.url().is_some_and(|failed| failed != url) => Miss::lost(error),
        Some(of_reqwest) if of_reqwest.is_builder() => Miss::unsendable(error),
        _ => Miss::of(error),
    }
}
