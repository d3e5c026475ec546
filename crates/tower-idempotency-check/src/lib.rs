#![doc = include_str!("../README.md")]

mod checks;
mod details;
mod dialect;
mod effects;
mod finding;
mod http;
mod mcp;
mod plan;
mod probe;
mod report;
mod run;
mod vary;

pub use self::http::address::AddressError;
pub use finding::{Checked, Event, Finding, Outcome, Report, Severity};
pub use plan::{Plan, PlanError, Settings};
