#![doc = include_str!("../README.md")]
//!
//! # Put a call in, and relay it
//! With the feature `postgres`, in a transaction of tokio-postgres, or of [any client](PostgresOutbox::put_sql):
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # mod shop {
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::{TokioExecutor, TokioTimer};
//! use tower_idempotency_outbox::deadpool_postgres::{Manager, Pool, tokio_postgres::NoTls};
//! use tower_idempotency_outbox::{Call, PostgresOutbox, Relay};
//!
//! # async fn shop() -> Result<(), Box<dyn std::error::Error>> {
//! let manager = Manager::new("postgres://shop@localhost/shop".parse()?, NoTls);
//! let pool = Pool::builder(manager).build()?;
//! let outbox = PostgresOutbox::new(pool.clone(), "payments_outbox")?;
//! outbox.migrate().await?; // makes the schema `payments_outbox` and its table
//!
//! // In one process, or in several. The client adds the credentials, which are not stored. With
//! // a timer it closes idle connections; without one it keeps them all, until there are no file
//! // descriptors any more.
//! let mut client = Client::builder(TokioExecutor::new());
//! let client = client.pool_timer(TokioTimer::new()).build_http::<Full<Bytes>>();
//! let stop = async { _ = tokio::signal::ctrl_c().await };
//! let relay = tokio::spawn(Relay::new(outbox.clone(), client).run(stop));
//!
//! // For each order:
//! let mut connection = pool.get().await?;
//! let transaction = connection.transaction().await?;
//! transaction.execute("INSERT INTO orders VALUES (17)", &[]).await?;
//! let request = http::Request::post("http://localhost:4242/v1/charges")
//!     .header("content-type", "application/x-www-form-urlencoded")
//!     .header("idempotency-key", "order-17:charge")
//!     .body("amount=500&currency=eur")?;
//! let call = Call::new(request)?.in_order_of("customer-7")?;
//! outbox.put_in(&transaction, &call).await?;
//! transaction.commit().await?;
//! # relay.await?;
//! # Ok(()) }
//! # }
//! ```
//!
//! With the feature `sled`, in a transaction of a `SledStore`: see [`SledOutbox`]. An application without a database
//! has an outbox in [files of its own](SledOutbox::open).
//!
//! # Look at it
//! ```
//! use tower_idempotency_client::Key;
//! use tower_idempotency_outbox::{Action, Outbox, State};
//!
//! # async fn look(outbox: impl Outbox) -> Result<(), Box<dyn std::error::Error>> {
//! let Some(entry) = outbox.get(&Key::new("order-17:charge")?).await? else { return Ok(()) };
//! match entry.state {
//!     State::Delivered => println!("paid: {:?}", entry.answer.map(|answer| answer.body)),
//!     State::Refused => println!("not paid: {:?}", entry.reason),
//!     State::GivenUp | State::Damaged => println!("an operator has to look: {:?}", entry.reason),
//!     _ => println!("under way: {} tries so far", entry.tries),
//! }
//! // An operator has looked at the payment API, and has found no charge. The server still knows
//! // the key. Each change is logged with the operator's name.
//! for entry in outbox.list(State::GivenUp, None, 100).await? {
//!     outbox.by("alice").apply(&entry, Action::Retry).await?;
//! }
//! # Ok(()) }
//! ```
//!
//! # What an answer means
//! A try sends the call through the layer of [`tower_idempotency_client`], which may send it several times. Of this
//! table, the first row that fits counts:
//!
//! | what the try has met | what becomes of the call |
//! |---|---|
//! | a body that says something, by gRPC's rules or by the [judge](tower_idempotency_client::KeyedRetryLayer::judge) | as the tables of what a body says have it in `docs/meanings.md` of tower-idempotency |
//! | a 2xx without `Idempotency-Effect`, or one that is a replay | [`Delivered`](State::Delivered) |
//! | another 2xx with `none`, or with `unknown` or `pending` in that header, and without `retry` | `Refused`, or `GivenUp` |
//! | a server that says that the operation has ended, and that its answer was not kept | as its status says: after a 2xx `Delivered`, after a 4xx `Refused`, else `GivenUp`; without an answer of the operation |
//! | a registered 4xx that is a replay, but for 408, and without `Idempotency-Effect` | [`Refused`](State::Refused) |
//! | 401, 407 that are no replay: the relay's credentials are not right | another try |
//! | 408, 409, 425, 429, or a server that says that the request may be sent again | another try |
//! | any other 4xx, and 307 and 308, if no earlier attempt may have taken effect | `Refused`: no redirect is followed |
//! | any other redirect, or replay; a server that says that it does not know | [`GivenUp`](State::GivenUp) |
//! | any other 4xx after an attempt that may have taken effect | another try |
//! | any other answer, such as 500; no answer; no connection | another try |
//!
//! A status counts although the body after it breaks off, or has no end. After a 2xx the call is tried once more, for
//! the whole answer, and is delivered whatever that try has met; [`is_cut`](Answer::is_cut) says that the answer is not
//! whole. An answer with a 4xx or 5xx in JSON is the exception, as the rest of it could say more of the operation: it
//! is another try. So is each one that is judged by its body, if it breaks off within the first 64 KiB.
//!
//! When there is [no time](Relay::give_up_after) for another try, the call is given up, and
//! [`may_have_taken_place`](Entry::may_have_taken_place) says what is known of it. It can be
//! [tried again](Action::Retry), or [settled](Action::SettleAsDone), as can be done with `idem outbox` and on the
//! operators' page.
//!
//! # What it promises
//! 1. A call is there if and only if the transaction that has put it in was committed.
//! 2. A call that is there is sent until it has an end, whichever processes are killed. Each attempt has the same key.
//! 3. Before it is sent, the outbox notes durably that it may have taken place. A call is `Refused` only if the
//!    operation has not taken place, as far as the server's answers are true.
//! 4. Calls with the same [partition key](Call::in_order_of) are sent in the order in which they were put in.
//! 5. A result is written only under the lease that the relay has.
//! 6. A destination that hangs takes at most [half of a relay's places](Relay::concurrency).
//! 7. No call is given up, and none is deleted, because one clock says so. Each outbox says which clocks it has.
//!
//! # What it does not promise
//! - **The server has to remember keys**, for longer than [`Relay::give_up_after`]. One that does not runs each
//!   attempt.
//! - **A server without a scope compares credentials.** There, each try of a call needs the ones of the first: after a
//!   token was renewed, the server answers `credentials-changed`, which says nothing of the first try, and the call is
//!   given up as one that may have taken place. Ask such a server with the old token, or let its operator look.
//! - The end of a lease proves that its relay can't write a result any more. It does not prove that its request can't
//!   arrive any more: see [`Relay`].
//! - Two transactions that overlap have no order, unless they wait for each other before they put their calls in.
//! - An operator who retries a call whose key the server has forgotten may have it done twice.
//! - The database is trusted: who can write to it can have requests made with the relay's credentials. Let the client
//!   refuse other hosts than those that it is for.
//! - Answers and requests are kept as they are, without the credentials of the client: encrypt the database if they are
//!   secret.

// Without a database that stores a call, there is nothing.
#![cfg(any(feature = "postgres", feature = "sled"))]
#![cfg_attr(docsrs, feature(doc_cfg))]

// `docs/journey.md` follows a call through the files, and says what each of the others is for.

mod action;
mod attempt;
mod call;
mod entry;
mod error;
mod lease;
#[cfg(feature = "metrics")]
mod metrics;
mod next;
mod observer;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres;
mod relay;
#[cfg(feature = "sled")]
mod sled;

pub use action::Action;
pub use call::{Call, InvalidCall};
/// The pool, and in it the client whose connections it has.
#[cfg(feature = "postgres")]
pub use deadpool_postgres;
pub use entry::{Answer, Entry, OpenCalls, State};
pub use error::OutboxError;
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use observer::Observer;
pub use outbox::{Operator, Outbox};
#[cfg(feature = "postgres")]
pub use postgres::PostgresOutbox;
pub use relay::Relay;
#[cfg(feature = "sled")]
pub use sled::{PutError, SledOutbox};

/// What its log lines come from.
const TARGET: &str = "tower_idempotency_outbox";
