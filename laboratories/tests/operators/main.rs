//! What operators read: the metrics, as Prometheus's exporter renders them, and none of what clients sent.
//!
//! In the laboratories because the exporter would be a tenth of the crates that the root's tests compile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod canaries;
mod metrics;
