//! Remembers which request each key was used for, so that a key that is used for another one is an error before
//! anything is sent. A call that has taken no effect is forgotten at its end.
//!
//! It holds hashes under a secret seed, and forgets those that were not used for longest: the server has the last word.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Uri};
use http_body::Body;
use http_body_util::BodyExt as _;
use lru::LruCache;
use parking_lot::Mutex;

use crate::Key;

/// How many keys are remembered.
const MAX_USES: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Two accounts may use the same key: it is another one for the server. A header that is missing here makes an error of
/// what the server would take, so APIs' own headers of tokens are in it.
const CREDENTIALS: [&str; 8] = [
    "authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "apikey", "x-auth-token",
    "stripe-account",
];

/// What a key is used for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// The key, the server and who asks.
    operation: u64,
    /// With the body, all of a request that a server compares.
    head: u64,
    /// `None`: it can't be read before it is sent, so it is not compared.
    body: Option<u64>,
}

impl Use {
    /// Whether the requests may be the same.
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
    requests: Mutex<LruCache<u64, Use>>,
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
        for name in CREDENTIALS {
            for value in headers.get_all(name) {
                (name, value).hash(&mut operation);
            }
        }
        let head = self.seed.hash_one((method, uri.path(), uri.query(), headers.get(CONTENT_TYPE)));
        let body = body.and_then(|body| match pin!(body.collect()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(read)) => Some(self.seed.hash_one(read.to_bytes())),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        });
        Use { operation: operation.finish(), head, body }
    }

    /// Remembers a use, unless there is one of this key, and says what the key was used for before.
    pub(crate) fn begin(&self, this: Use) -> Before {
        let mut requests = self.requests.lock();
        match requests.get(&this.operation) {
            Some(before) if before.may_be(this) => Before::Same,
            Some(_) => Before::Other,
            None => {
                requests.put(this.operation, this);
                Before::Nothing
            }
        }
    }

    /// Forgets a use: the key is free for a corrected request.
    pub(crate) fn forget(&self, this: Use) {
        self.requests.lock().pop(&this.operation);
    }
}
