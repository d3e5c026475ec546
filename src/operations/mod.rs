//! The operators' interface, one for the layer, [`Once`](crate::Once) and all stores: list, find, inspect and settle
//! operations.
//!
//! ```
//! # #[cfg(all(feature = "memory", feature = "server"))] {
//! use tower_idempotency::operations::{Action, Change, Filter, StateKind};
//! use tower_idempotency::{IdempotencyLayer, Key, MemoryStore, Scope};
//!
//! # async fn evening(layer: IdempotencyLayer<MemoryStore>) -> Result<(), Box<dyn std::error::Error>> {
//! let operations = layer.operations();
//! // All that was interrupted more than an hour ago, the oldest first.
//! let hour = std::time::Duration::from_secs(3_600);
//! let old = operations.list(&Filter::all().in_state(StateKind::Interrupted).older_than(hour), None, 100).await?;
//! for operation in old.operations {
//!     println!("{} {:?}", operation.id, operation.label());
//! }
//! // What a client asks about.
//! let scope = Scope::new("account 17")?;
//! if let Some(found) = operations.find(Some(&scope), &Key::new("their key")?).await? {
//!     // Looked up by hand: it did not take place. The next retry runs.
//!     let change = Change::new(found.id, found.fence, Action::Release);
//!     operations.by("alice").apply(change).await?;
//! }
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! # What operators see, and what they do not
//! A list shows ids, labels, times and states. It shows no key, no scope and no body: a store has keys and scopes only
//! as digests. [`outcome`](Operations::outcome) returns an answer with its body.
//!
//! # Audit
//! Each change leaves one event in the log, with the target `tower_idempotency::audit`: the actor, the action, the
//! record id, the fence, and the result. It is written even if the caller goes away.

// - `reader.rs`: reads. `filter.rs`: which operations are meant. `record.rs`: what is known of one.
// - `operator.rs`: makes changes. `change.rs`: what they are, and what became of them. `audit.rs`: their event.
// - `answer.rs`: an outcome as a layer or a consumer records it; `encoding.rs` turns it into bytes, and back.
// - `written.rs`: a change in JSON, and a recorded answer. `handles.rs`: the methods of the layer and of `Once`.

mod answer;
mod audit;
mod change;
mod encoding;
mod filter;
mod handles;
mod operator;
mod reader;
mod record;
#[cfg(feature = "server")]
pub(crate) mod written;

pub use answer::{Answer, Form};
pub use change::{Action, Applied, Change, ChangeError, Purged, Reconciliation};
pub use filter::Filter;
pub use operator::Operator;
pub use reader::{Listing, Operations};
pub use record::{OperationRecord, OperationState, Server, StateKind, StateKindError};

pub use crate::slots::Mismatched;
pub use crate::store::page::{Cursor, CursorError};
