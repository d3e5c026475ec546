//! Effect and record in one transaction of the application: both take place, or neither does.

mod failover;
mod kills;
mod nested;
mod open;
mod outcomes;
pub(crate) mod process;
mod takeover;
