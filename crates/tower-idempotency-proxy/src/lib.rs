//! [`tower-idempotency`](https://docs.rs/tower-idempotency) as a reverse proxy, in front of a service in any language.
//!
//! A request with an `Idempotency-Key` is claimed before it is sent on; its answer is recorded and replayed. All other
//! requests are streamed, in both directions. `idem proxy` of `tower-idempotency-cli` is its program; the guide has
//! [a page](https://docs.rs/tower-idempotency/latest/tower_idempotency/guide/proxy/index.html) on both.
//! ```no_run
//! use tokio::net::TcpListener;
//! use tower_idempotency::{AnyStore, IdempotencyLayer};
//! use tower_idempotency_proxy::{Proxy, Upstream, recorder};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let store = AnyStore::connect("sled:/var/lib/proxy").await?;
//! let upstream = Upstream::new("http://127.0.0.1:3000".parse()?)?;
//! let proxy = Proxy::new(IdempotencyLayer::new(store), upstream);
//! let listen = TcpListener::bind("127.0.0.1:8080").await?;
//! let monitor = TcpListener::bind("127.0.0.1:9090").await?;
//! proxy.serve(listen, monitor, recorder()?, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//! **It can't see the effect.** If the connection to the service breaks after the request was sent, it is unknown
//! whether the operation took place, and the layer says so to each retry. Nothing but the service can do better: give
//! the key that it gets to what it calls, or commit it with the effect.

mod answer;
mod body;
mod connections;
mod head;
mod monitor;
mod places;
mod proxy;
mod read_on;
mod reading;
mod upstream;

pub use monitor::recorder;
pub use proxy::{Proxy, ProxyService};
pub use upstream::{Upstream, UpstreamError};
