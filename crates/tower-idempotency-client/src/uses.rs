//! Remembers which request each key was used for, so that a key that is used for another one is an error before
//! anything is sent.
//!
//! It holds hashes under a secret seed, and forgets those that were not used for longest: the server has the last word.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Buf as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method, Uri};
use http_body::Body;
use lru::LruCache;
use parking_lot::Mutex;

use crate::Key;

/// How many keys are remembered.
const MAX_USES: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

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
    request: Digest,
}

/// All of a request that a server compares.
#[derive(Debug, Clone, Copy)]
struct Digest {
    head: u64,
    /// `None`: it can't be read before it is sent, so it is not compared.
    body: Option<u64>,
}

impl Digest {
    fn may_be(self, other: Self) -> bool {
        let is_body_equal = self.body.zip(other.body).is_none_or(|(body, other)| body == other);
        self.head == other.head && is_body_equal
    }
}

/// What a key was used for before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    Same,
    Other,
}

pub(crate) struct Uses {
    seed: RandomState,
    requests: Mutex<LruCache<u64, Digest>>,
}

impl Uses {
    pub(crate) fn new() -> Self {
        Self { seed: RandomState::new(), requests: Mutex::new(LruCache::new(MAX_USES)) }
    }

    /// Describes a use. A body that is not there at once is not compared.
    pub(crate) fn describe<B: Body>(
        &self,
        key: &Key,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: Option<B>,
    ) -> Use {
        let mut operation = self.seed.build_hasher();
        key.hash(&mut operation);
        (uri.scheme(), uri.authority(), headers.get(HOST)).hash(&mut operation);
        for name in &CREDENTIALS {
            for value in headers.get_all(name) {
                (name, value).hash(&mut operation);
            }
        }
        let head = self.seed.hash_one((method, uri.path(), uri.query(), headers.get(CONTENT_TYPE)));
        let body = body.and_then(|body| self.digest(body));
        Use { operation: operation.finish(), request: Digest { head, body } }
    }

    fn digest<B: Body>(&self, body: B) -> Option<u64> {
        let mut digest = self.seed.build_hasher();
        let mut body = std::pin::pin!(body);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let frame = match Pin::as_mut(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(None) => return Some(digest.finish()),
                Poll::Ready(Some(Err(_))) | Poll::Pending => return None,
            };
            if let Ok(mut data) = frame.into_data() {
                while data.has_remaining() {
                    let length = data.chunk().len();
                    digest.write(data.chunk());
                    data.advance(length);
                }
            }
        }
    }

    /// Remembers a use, unless there is one of this key, and says what the key was used for before.
    pub(crate) fn begin(&self, this: Use) -> Before {
        let mut requests = self.requests.lock();
        match requests.get(&this.operation) {
            Some(before) if before.may_be(this.request) => Before::Same,
            Some(_) => Before::Other,
            None => {
                requests.put(this.operation, this.request);
                Before::Nothing
            }
        }
    }

    /// Forgets a use: the key is free for a corrected request.
    pub(crate) fn forget(&self, this: Use) {
        self.requests.lock().pop(&this.operation);
    }
}

impl std::fmt::Debug for Uses {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Uses").finish_non_exhaustive()
    }
}
