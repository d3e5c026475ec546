//! A small TCP proxy on loopback, which follows a plan for each connection: pass, cut, hold, swallow, send again.
//!
//! A connection that breaks at byte k breaks there because so many bytes were forwarded, not because some time has
//! passed: nothing here knows the clock.

mod carry;
mod link;
mod plan;
mod traffic;

pub use link::Link;
pub use plan::{End, Plan, Until, Way};
pub use traffic::{Flow, Traffic};
