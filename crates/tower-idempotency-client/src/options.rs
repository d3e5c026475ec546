//! What a layer sets, and what follows from it for a call: its key, before it, and how its answers are read.

use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderName, Response};
use retry_policies::RetryPolicy;
use tower::retry::budget::Budget;
use tower_idempotency_meaning::{Answer, BodyJudge, Says, is_of_grpc};

use crate::uses::Uses;
use crate::{InvalidKey, Key, Observer, ResponseBody};

/// The key of a call.
pub(crate) struct Chosen {
    pub(crate) key: Key,
    /// Whether it is the caller's, who may have used it before.
    pub(crate) is_own: bool,
}

type ChooseKey = dyn Fn(&Extensions) -> Result<Key, InvalidKey> + Send + Sync;

/// What [`KeyedRetryLayer`](crate::KeyedRetryLayer) sets.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) header: HeaderName,
    pub(crate) replay_header: HeaderName,
    pub(crate) is_quoted: bool,
    pub(crate) choose_key: Option<Arc<ChooseKey>>,
    pub(crate) attempt_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) backoff: Arc<dyn RetryPolicy + Send + Sync>,
    pub(crate) budget: Arc<dyn Budget + Send + Sync>,
    pub(crate) max_answer: usize,
    pub(crate) judge: Option<BodyJudge>,
    pub(crate) has_redirects: bool,
    pub(crate) has_probes: bool,
    pub(crate) uses: Arc<Uses>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Options {
    pub(crate) fn is_replay(&self, headers: &HeaderMap) -> bool {
        headers.get(&self.replay_header).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
    }

    /// Whether the body or the trailers of an answer are judged.
    pub(crate) fn judges(&self, headers: &HeaderMap) -> bool {
        self.judge.is_some() || is_of_grpc(headers)
    }

    /// Returns what the body or the trailers of an answer say; `None` for one that was not read to its end.
    pub(crate) fn says<B>(&self, answer: &Response<ResponseBody<B>>) -> Option<Says> {
        let (headers, body) = (answer.headers(), answer.body());
        if !self.judges(headers) || !body.is_whole() {
            return None;
        }
        let read = body.bytes_read();
        let answer = Answer::new(answer.status(), headers, &read).with_trailers(body.trailers());
        BodyJudge::grpc().judge(&answer).or_else(|| self.judge.as_ref()?.judge(&answer))
    }

    /// Returns the key of a call, and writes it into the header, in the form that the API expects.
    pub(crate) fn key(&self, headers: &mut HeaderMap, extensions: &Extensions) -> Result<Chosen, InvalidKey> {
        let mut lines = headers.get_all(&self.header).iter();
        let own = match (lines.next(), lines.next(), extensions.get::<Key>(), &self.choose_key) {
            (Some(line), None, None, _) => Some(Key::try_from(line)?),
            // They may be equal, but one of them is too many.
            (Some(_), ..) => return Err(InvalidKey::Doubled),
            (None, _, Some(key), _) => Some(key.clone()),
            (None, _, None, Some(choose)) => Some(choose(extensions)?),
            (None, _, None, None) => None,
        };
        let is_own = own.is_some();
        let key = own.unwrap_or_else(Key::random);
        headers.insert(&self.header, key.to_header(self.is_quoted)?);
        Ok(Chosen { key, is_own })
    }
}
