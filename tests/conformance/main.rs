//! The suite for databases that several processes share: the one in memory keeps the contract, and each that breaks a
//! rule is caught by the rule's name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod broken;
mod faults;
mod memory;
mod stores;
