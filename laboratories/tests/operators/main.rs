//! What operators read: the metrics, as Prometheus's exporter renders them, and none of what clients sent. And what
//! wakes them: the alerts, in a Prometheus of their own.
//!
//! In the laboratories because the exporter would be a tenth of the crates that the root's tests compile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(target_os = "linux")]
mod alarms;
mod canaries;
mod metrics;
#[cfg(target_os = "linux")]
mod prometheus;
