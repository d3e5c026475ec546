//! The body of a request: whether it was read whole, and why the request is refused if not.

use bytes::Bytes;
use http::{Response, Version};
use http_body::Body;

use super::read_on::Connection;
use crate::server::bodies::body::Passage;
use crate::server::bodies::collect::{Collected, Why, exceeds_limit};
use crate::server::reject::reasons;
use crate::server::reject::rejection::Rejection;

/// A body that was not read to its end, and why its request is refused.
pub(crate) enum Unread<B> {
    /// It has ended too early.
    Ended(Rejection),
    /// The rest can't be read, or is not waited for.
    Closed(Rejection),
    /// This is the rest, and whether the client was asked for it.
    Rest(Rejection, B, bool),
}

impl<B: Body + Unpin> Unread<B> {
    /// Returns the answer to the request, which `reject` makes.
    pub(crate) async fn refused<R>(
        self,
        connection: Connection,
        reject: impl FnOnce(Rejection) -> Response<R>,
    ) -> Response<R> {
        match self {
            Self::Ended(rejection) => reject(rejection),
            Self::Closed(rejection) => connection.close(reject(rejection)),
            Self::Rest(rejection, rest, is_asked) => {
                let connection = if is_asked { connection.after_body_was_asked_for() } else { connection };
                connection.read_on(rest, reject(rejection)).await
            }
        }
    }
}

/// Returns a body that is too long, of which nothing was read.
pub(crate) fn too_long<B: Body>(body: B) -> Collected<B> {
    Collected::Over { why: Why::TooLong, head: Bytes::new(), rest: body }
}

/// Returns what was read of a body that was collected, or why its request is refused. `declared` is its length, as
/// the head says it.
#[inline]
pub(crate) fn whole<B: Body<Error: 'static>, T: Body>(
    collected: Collected<B>,
    declared: Option<u64>,
    limit: usize,
) -> Result<Passage<T>, Unread<B>> {
    match collected {
        Collected::Whole { data, .. } if declared.is_some_and(|declared| declared > data.len() as u64) => {
            Err(Unread::Ended(reasons::body_incomplete()))
        }
        Collected::Whole { data, trailers } => Ok(Passage::Whole { data, trailers }),
        Collected::Over { why, head, rest } => {
            let rejection = match why {
                Why::TooLong => reasons::body_too_large(limit),
                Why::OverBudget => reasons::overloaded(),
                // A body that came too slowly is not waited for once more.
                Why::TooSlow => return Err(Unread::Closed(reasons::body_late())),
            };
            // A body that declares more than the limit was not polled. Any other was, which asks a waiting client
            // for it.
            let is_asked = why != Why::TooLong || !head.is_empty();
            Err(Unread::Rest(rejection, rest, is_asked))
        }
        // What is left of a body that failed can't be read.
        Collected::Failed { error, .. } => {
            let is_over = exceeds_limit(&error);
            let rejection = if is_over { reasons::body_over_outer_limit() } else { reasons::body_incomplete() };
            Err(Unread::Closed(rejection))
        }
    }
}

/// Yields once over HTTP/2, after a body that declared no length, so that hyper can drop the request if its stream was
/// reset.
///
/// hyper reports a stream that is reset without an error as one that has ended. `is_end_stream` could distinguish them,
/// but many bodies that a layer outside has made don't implement it, and can't be rejected for that. hyper looks for a
/// reset whenever this future is not ready, and drops this future if there was one.
pub(crate) async fn let_go_if_reset(version: Version, declared: Option<u64>) {
    if version >= Version::HTTP_2 && declared.is_none() {
        tokio::task::yield_now().await;
    }
}
