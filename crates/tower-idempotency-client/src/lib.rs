#![doc = include_str!("../README.md")]
//!
//! # With reqwest
//! ```
//! use std::time::Duration;
//!
//! use reqwest::redirect::Policy;
//! use tower::{Layer as _, Service as _, ServiceExt as _};
//! use tower_idempotency_client::{Delivery, Key, KeyedRetry, KeyedRetryLayer, Known};
//!
//! // Once, at the start. Redirects are off, because the errors of reqwest do not say whether one
//! // was followed; then `without_redirects` lets the layer retry after them. reqwest's own
//! // retries may stay as they are.
//! # fn start() -> Result<KeyedRetry<reqwest::Client>, reqwest::Error> {
//! let client = reqwest::Client::builder().redirect(Policy::none()).build()?;
//! let layer = KeyedRetryLayer::new().without_redirects().deadline(Duration::from_secs(20));
//! let client = layer.layer(client);
//! # Ok(client) }
//!
//! /// Pays an order. `key` is `Key::random()` as text, which was saved with the order before the
//! /// first call. It is for this order and this request only.
//! async fn pay(mut client: KeyedRetry<reqwest::Client>, key: &str, order: &str)
//!     -> Result<(), Box<dyn std::error::Error>> {
//!     let request = client.get_ref().post("https://api.example.com/charges");
//!     let request = request.header("idempotency-key", key);
//!     let request = request.form(&[("order", order), ("amount", "500"), ("currency", "eur")]);
//!     match client.ready().await?.call(request.build()?).await {
//!         Ok(answer) => match answer.extensions().get::<Delivery>() {
//!             // A recorded error, such as a 500: it may have come after the charge.
//!             Some(delivery) if delivery.is_unknown() && delivery.is_replay() => {
//!                 println!("look it up");
//!             }
//!             // No success, and no proof that nothing was done: a 500, or a 401 after a lost
//!             // attempt.
//!             Some(delivery) if delivery.is_unknown() => {
//!                 println!("call again later, with the saved key");
//!             }
//!             _ if answer.status().is_success() => {
//!                 println!("paid: {}", answer.text().await.unwrap_or_default());
//!             }
//!             _ => println!("not paid: {}", answer.status()),
//!         },
//!         Err(error) => match error.known() {
//!             Known::NotSent | Known::Refused => println!("not paid: {error}"),
//!             Known::Done => println!("it ran, and its answer was not kept: look it up"),
//!             // A new key could charge a second time.
//!             _ => println!("call again later, with the saved key: {error}"),
//!         },
//!     }
//!     Ok(())
//! }
//! ```
//!
//! The service is `Clone`: clone it for each task. Clones share the budget for retries and the memory of keys.
//!
//! What is known of a call that ended without an answer:
//!
//! | [`Known`] | the operation | what to do |
//! |---|---|---|
//! | `NotSent` | has not taken place | call again with the same key, or give it up |
//! | `Refused` | has not taken place | the same; if the reason is that the key has another request, take a new key |
//! | `Unknown` | may have taken place | call again later, with the same key and the same request, until there is an answer. If there is an [`Error::record_id`], the server does not know either: quote it to its operator |
//! | `Done` | has taken place, with a result that was not kept; it may have been an error | look the result up; no call brings it back |
//!
//! A later call with the key of one that ended as `Unknown` never says `NotSent` or `Refused`, as long as the layer
//! remembers the key (it remembers 10,000, in one process). So there is nothing to add up: the last word counts.
//!
//! Without a key in the header, the call gets a random one, which its attempts share. That is enough for an operation
//! that ends with its process; [`Error::key`] and [`Delivery::key`] have it.
//!
//! With the feature `reqwest-middleware`, the layer is also a middleware, with reqwest's own way to build requests:
//!
//! ```
//! # #[cfg(feature = "reqwest-middleware")]
//! # async fn pay() -> Result<(), Box<dyn std::error::Error>> {
//! use reqwest::redirect::Policy;
//! use tower_idempotency_client::{Error, KeyedRetryLayer};
//!
//! let client = reqwest::Client::builder().redirect(Policy::none()).build()?;
//! let layer = KeyedRetryLayer::new().without_redirects();
//! let client = reqwest_middleware::ClientBuilder::new(client).with(layer).build();
//!
//! let request = client.post("https://api.example.com/charges").body("amount=500&currency=eur");
//! let result = request.send().await;
//! if let Some(error) = result.as_ref().err().and_then(Error::within) {
//!     println!("{:?}: {error}", error.known());
//! }
//! # Ok(()) }
//! ```
//!
//! reqwest-retry may stay for requests with a safe method, with the feature `reqwest-retry` and its
//! `KeyedStrategy`.
//!
//! # With hyper, and with any other service
//! The inner service takes an [`http::Request`] whose body implements [`RetryBody`]: `Full` and `Empty` do, and
//! [`SentOnce`] wraps all others. With the feature `hyper-util`, "no connection" is recognized in the errors of its
//! client.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::{TokioExecutor, TokioTimer};
//! use tower::{Layer as _, ServiceExt as _};
//! use tower_idempotency_client::KeyedRetryLayer;
//!
//! # async fn pay() -> Result<(), Box<dyn std::error::Error>> {
//! // With a timer it closes idle connections; without one it keeps them all.
//! let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build_http();
//! let client = KeyedRetryLayer::new().layer(client);
//! let body = Full::new(Bytes::from("amount=500"));
//! let request = http::Request::post("http://127.0.0.1:4242/v1/charges").body(body)?;
//! let answer = client.oneshot(request).await?;
//! # Ok(()) }
//! ```
//!
//! A layer that follows redirects belongs outside of this one. A timeout for each attempt is part of it. A layer that
//! retries belongs nowhere: outside of this one, each of its attempts is a call with a new random key. The exception is
//! reqwest-retry with `KeyedStrategy`, which does not repeat such a call.
//!
//! # What is retried
//! | what an attempt got | what follows | known, if there is no other attempt |
//! |---|---|---|
//! | no connection | a retry | not sent |
//! | a connection that broke, an answer that broke off, a timeout | a retry | unknown |
//! | an answer with `Idempotent-Replayed: true`, or what came after a redirect that was followed | it is the answer | |
//! | `Idempotency-Effect: done`, or a problem `not-replayable` | an error: [`Reason::NotKept`] | by the parameter `status` or the member `original_status`: a 2xx is done, any other one as below; without it, unknown |
//! | `Idempotency-Effect` with the parameter `retry`, and not 422 | a retry | by its token: `none` is refused, `pending` and `unknown` are unknown |
//! | the same with `retry=?0`, or on a 2xx | an error: [`Reason::Rejected`] | by its token; `none` on a 2xx is unknown, unless it is gRPC's or its body is no success |
//! | the same without the parameter | as its status says below | by its token |
//! | `Idempotency-Effect` that is malformed, on several lines, or has another token, and no 2xx | as its status says below | unknown |
//! | a body that says "try later" by gRPC's rules or by the [judge](KeyedRetryLayer::judge) | a retry | refused |
//! | a body that says that the server has failed, or that it does not know, with 408, 421, 425, 429, 502, 503 or 504 | a retry | unknown |
//! | any other body that says something | it is the answer; [`Delivery::says`] has what | |
//! | a 2xx, also with such an `Idempotency-Effect` | it is the answer | |
//! | a problem with `retry_with_same_key` and `original_status`, and a type that is not known here: the replay was refused | an error: [`Reason::NotKept`], or a retry | as above, or unknown |
//! | a problem (RFC 9457) with `retry_with_same_key: true`, such as 409 `in-flight`, and not 422 | a retry | by its type, else by its status |
//! | a problem with that member otherwise, such as `outcome-unknown` | an error: [`Reason::Rejected`] | by its type, else by its status |
//! | another type or code that has `idempoten` in it, a 4xx but for 409, and a key of the caller's own | an error: [`Reason::Rejected`] | unknown: an earlier call may have had the key |
//! | the code `idempotency_conflict`: the key has another request | an error: [`Reason::Rejected`] | unknown: an earlier attempt may have had the key |
//! | 409 with a type or code of keys: `idempotency_key_in_use`, `idempotency_in_flight`, `idempotency_error`, or a problem whose type has `idempotency` in it | a retry | unknown |
//! | the type `idempotency_error` with another status: the key has another request | an error: [`Reason::Rejected`] | unknown, for the same reason |
//! | the code `outcome_unknown`, `not_verifiable` or `credentials_changed`, without `Retry-After`, and not 503 | an error: [`Reason::Rejected`] | unknown |
//! | the code `not_replayable`, likewise | an error: [`Reason::NotKept`] | as above |
//! | 422 | it is the answer, whatever its headers say | |
//! | `stripe-should-retry` or `x-should-retry`: `true` | a retry | by its status |
//! | the same: `false`, with 408, 409, 425, 429, 502, 503 or 504 | an error: [`Reason::Rejected`] | by its status |
//! | the same: `false`, with another status | it is the answer | |
//! | 421, 425, 429, and 413 with `Retry-After` | a retry | refused |
//! | 408, 502, 503, 504 | a retry | unknown |
//! | 409 with `Retry-After`, or after an attempt that was lost | a retry | unknown |
//! | any other answer, redirects and 500 included | it is the answer | |
//!
//! The first row that fits counts. A status says that the operation was refused if it is a registered 4xx, but for 408,
//! and for 409 to a key of the caller's own; or 307, 308 or 511. Any other one leaves it unknown. An error sums up all
//! attempts: one that was lost makes the operation unknown, unless a later one says how it has ended.
//!
//! With a [judge](KeyedRetryLayer::judge), a 200 may be a refusal: ask [`Delivery::is_success`] in place of the status.
//! `docs/meanings.md` of tower-idempotency has what each body says.
//!
//! A retry waits for `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3), and for a random time besides.
//! By default an attempt takes 30 s at most, and all attempts of a call [60 s](KeyedRetryLayer::deadline). All calls
//! share a [budget](KeyedRetryLayer::budget) of 10 retries a second and a fifth of their number; when it is used up, a
//! call ends with what is known by then ([`Reason::Budget`]). An answer of up to
//! [1 MiB](KeyedRetryLayer::max_answer) is read within its attempt.
//!
//! An error has the failure of the last attempt as its `source`. [`Error::response`] has the server's last rejection,
//! or what has come of an answer that broke off.
//!
//! Requests with a safe method (GET, HEAD, OPTIONS, TRACE; RFC 9110 section 9.2.1) pass through. They get no key, are
//! not retried, and cost no allocation.
//!
//! # What it does not promise
//! - What a call with a saved key finds after a restart says nothing of those before it: [`Known::NotSent`] is of this
//!   process.
//! - An answer longer than [`max_answer`](KeyedRetryLayer::max_answer), and an event stream, can break off after the
//!   layer has passed it on. Ask again with [`Delivery::key`].
//! - A call whose future is dropped may have been sent.
//! - That a key is used for one request only is checked for the last 10,000 keys of one layer, by a hash. The server
//!   has the last word.
//! - A client or a layer outside that follows a redirect to another origin sends the header of the key there, too.
//! - An answer is the request's own only if the server sends nothing after the end of another one. Over HTTP/1.1, a
//!   client that keeps connections reads a second answer, or a body with the answer to a HEAD, as that to its next
//!   request. Let a client for such a server keep none: `pool_max_idle_per_host(0)`, of hyper-util's and of reqwest's.
//! - What it says of a connection that was never made is the word of the client itself: hyper-util's or reqwest's.

// `layer.rs` and `service.rs` are the Tower side, `reqwest/` the one for reqwest. Both run `attempts.rs`, which asks
// `verdict.rs` and `retry_after.rs` what an answer means, `transport.rs` what a failure means, and `uses.rs` whether
// the key is free. `options.rs` has the layer's settings. Values: `key.rs`, `body.rs`, `delivery.rs`, `error.rs`.
// `observer.rs` is for metrics.

mod attempts;
mod body;
mod delivery;
mod error;
mod key;
mod layer;
mod observer;
mod options;
#[cfg(feature = "reqwest")]
mod reqwest;
mod retry_after;
mod service;
mod transport;
mod uses;
mod verdict;

pub use body::{ResponseBody, RetryBody, SentOnce};
pub use delivery::Delivery;
pub use error::{Error, Known, Reason};
pub use key::{InvalidKey, Key};
pub use layer::KeyedRetryLayer;
pub use observer::{CallEnd, Observer};
#[cfg(feature = "reqwest-retry")]
pub use reqwest::KeyedStrategy;
pub use retry_after::retry_after;
pub use service::{KeyedRetry, ResponseFuture};
pub use tower::BoxError;
pub use tower_idempotency_meaning::{Answer, BodyJudge, Rule, Says, WrongRule};
