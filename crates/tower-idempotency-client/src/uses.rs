//! Remembers which request each key was used for, so that a key that is used for another one is an error before
//! anything is sent.
//!
//! It holds hashes under secret seeds, and forgets the least used ones: the server has the last word.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Buf as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method, Uri};
use http_body::Body;
use quick_cache::sync::Cache;

use crate::Key;

/// How many keys are remembered.
const MOST_USES: usize = 10_000;

/// Two accounts may use the same key: it is another one for the server. A header that is missing here makes an error of
/// what the server would take, so APIs' own headers of tokens are in it.
const CREDENTIALS: [HeaderName; 8] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("apikey"),
    HeaderName::from_static("x-auth-token"),
    HeaderName::from_static("stripe-account"),
];

/// What a key is used for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// The key, the server and who asks.
    operation: u64,
    /// All of the request that a server compares.
    request: u64,
}

/// What a key was used for before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    Same,
    Other,
}

#[derive(Debug)]
pub(crate) struct Uses {
    seed: RandomState,
    requests: Cache<u64, u64>,
}

impl Uses {
    pub(crate) fn new() -> Self {
        Self { seed: RandomState::new(), requests: Cache::new(MOST_USES) }
    }

    /// Describes a use. The body is read to its end if that needs no waiting; else it is not compared.
    pub(crate) fn describe<B: Body>(&self, key: &Key, method: &Method, uri: &Uri, headers: &HeaderMap, body: B) -> Use {
        let mut operation = self.seed.build_hasher();
        key.hash(&mut operation);
        (uri.scheme(), uri.authority(), headers.get(HOST)).hash(&mut operation);
        for name in &CREDENTIALS {
            for value in headers.get_all(name) {
                (name, value).hash(&mut operation);
            }
        }
        let mut request = self.seed.build_hasher();
        (method, uri.path(), uri.query(), headers.get(CONTENT_TYPE)).hash(&mut request);
        let mut body = std::pin::pin!(body);
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::as_mut(&mut body).poll_frame(&mut cx) {
            if let Ok(mut data) = frame.into_data() {
                while data.has_remaining() {
                    let chunk = data.chunk();
                    request.write(chunk);
                    let length = chunk.len();
                    data.advance(length);
                }
            }
        }
        Use { operation: operation.finish(), request: request.finish() }
    }

    /// Remembers a use, and says what the key was used for before.
    pub(crate) fn begin(&self, this: Use) -> Before {
        let mut before = Before::Same;
        // Of two calls at once, the second one finds what the first one has written.
        let request = self.requests.get_or_insert_with(&this.operation, || {
            before = Before::Nothing;
            Ok::<_, ()>(this.request)
        });
        if request == Ok(this.request) { before } else { Before::Other }
    }

    /// Forgets a use: the key is free for a corrected request.
    pub(crate) fn forget(&self, this: Use) {
        self.requests.remove(&this.operation);
    }
}
