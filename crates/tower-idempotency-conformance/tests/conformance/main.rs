//! Each store and the database in memory keep their contract, and each store or database that breaks a rule is caught
//! by the rule's name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod broken_backend;
mod broken_store;
mod faults;
mod memory;
mod stores;
mod transactions;
