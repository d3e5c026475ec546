#![doc = include_str!("../README.md")]
//!
//! The hook is not optional:
//!
//! ```compile_fail,E0061
//! # use tower_idempotency::{IdempotencyLayer, MemoryStore};
//! # use tower_idempotency_admin::AdminPage;
//! let layer = IdempotencyLayer::new(MemoryStore::new());
//! let page = AdminPage::new(layer.operations());
//! ```
//!
//! # What it protects itself against
//! - **Callers without access.** The hook sees each request, for a file or the description of the API too, before
//!   it is answered. What the page shows and changes is what the hook's [`Access`] permits.
//! - **Other pages.** Each POST needs `Sec-Fetch-Site: same-origin`, which browsers send, or an `Origin` that is the
//!   request's host. Programs have to send one of them, too. No other page can frame this one.
//! - **Markup.** Labels, statuses, scopes and URLs are escaped, and characters that hide or turn text around are shown
//!   as numbers. The page has no inline script and no inline style, and its content security policy permits none.
//! - **Keys in logs.** The page sends a key in the body of a request. No URL has one, and no answer repeats it.
//!
//! **A hook that trusts the address of the caller has to look at the header `Host`, too**: a page of another host can
//! make a browser on this machine call it under that host's name ("DNS rebinding").
//!
//! # How it is served
//! Mount it with [`nest`](axum::Router::nest) under any path. All its links are relative, so that a proxy may serve it
//! under another path. It is rendered by the server, and reading and settling work without JavaScript.
//!
//! The API is under `api/`; `GET api/openapi.json` describes it. Numbers that may exceed 2<sup>53</sup> are texts.

// - `router.rs` builds the router. `guard.rs` decides which requests pass; `access.rs` and `nonce.rs` are its words.
// - `page/`: the page. `api/`: the JSON API. `site.rs` is what both share; `overview.rs`, `latencies.rs` and
//   `health.rs` are the numbers, `selection.rs` is what a URL selects, `action.rs` is what operators do,
//   and `outbox.rs` the same for outboxes.
// - `fields.rs`, `text.rs`, `problem.rs`, `timeout.rs`: forms, texts from outside, errors, and what comes too late.

mod access;
mod action;
mod api;
mod fields;
mod guard;
mod health;
mod latencies;
mod nonce;
#[cfg(all(feature = "outbox", not(any(feature = "outbox-postgres", feature = "outbox-sled"))))]
compile_error!("an outbox needs its database: choose the feature `outbox-postgres` or `outbox-sled`");
#[cfg(feature = "outbox")]
mod outbox;
mod overview;
mod page;
mod problem;
mod router;
mod selection;
mod site;
mod text;
mod timeout;

pub use access::{Access, Actor, Permission};
pub use latencies::Latencies;
pub use nonce::{Nonce, NonceError};
pub use router::AdminPage;

// The examples of the guide that use this crate are tested here, because the root does not know it.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/running/page.md")]
mod guide {}
