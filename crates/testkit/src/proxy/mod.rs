//! The one TCP proxy: a way to a server, on loopback, on which a [`Fate`] says what becomes of each connection.
//!
//! A connection that breaks at byte k breaks there because so many bytes were forwarded, not because some time has
//! passed: nothing here knows the clock. A [`Link`] is the way of one connection, whose fate is a [`Plan`]: pass, cut,
//! hold, swallow, send again.

mod carry;
mod cut;
mod fate;
mod link;
mod plan;
mod planned;
mod traffic;
mod way;

pub use cut::Cut;
pub use fate::{End, Fate, Pass, Way};
pub use link::Link;
pub use plan::{Plan, Until};
pub use traffic::{Flow, Traffic};
pub use way::Proxy;
