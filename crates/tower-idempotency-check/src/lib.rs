//! Examines from outside whether an HTTP API keeps what `Idempotency-Key` promises, in any language.
//!
//! It sends requests and looks at answers, within minutes: the same key again, a hundred copies at once, a key for
//! another request, keys in strange forms, clients that hang up, errors that are retried. Effects are counted by a
//! request of the API's own, or inferred from the answers. `idem check` of `tower-idempotency-cli` is its program.
//! ```no_run
//! use tower_idempotency_check::Plan;
//!
//! # async fn check() -> Result<(), tower_idempotency_check::PlanError> {
//! let plan = Plan::from_toml(
//!     r#"
//!     url = "http://127.0.0.1:4242/v1/charges"
//!     data = "amount=5&currency=usd&source=tok_visa"
//!     count = "GET /v1/charges?limit=100"
//!     profile = "stripe"
//!     "#,
//! )?;
//! let report = plan.run(|check| println!("{}: {:?}", check.name, check.outcome)).await;
//! println!("{}", report.to_text());
//! # Ok(())
//! # }
//! ```
//! **It makes effects**: each check sends some requests that succeed. Don't point it at a server that charges real
//! cards. It sends to the named server only, follows no redirects, and sends at most
//! [`max_requests`](Settings::max_requests) requests.
//!
//! What it can't see: an effect that no answer speaks of, if the plan does not say how to count, or that comes later
//! than the answer; what becomes of a key after more time than it waits; and what a server does when its disk fails.

mod checks;
mod details;
mod dialect;
mod effects;
mod finding;
mod http;
mod plan;
mod probe;
mod report;
mod run;
mod vary;

pub use self::http::address::AddressError;
pub use finding::{Checked, Event, Finding, Outcome, Report, Severity};
pub use plan::{Plan, PlanError, Settings};
