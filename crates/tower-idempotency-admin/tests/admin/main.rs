//! The operators' page, as callers see it: who may do what, what it withstands, and how it settles.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod authorization;
mod canaries;
mod choosing;
mod colours;
mod desk;
mod document;
mod finding;
mod headers;
mod live;
mod many;
mod markup;
mod odd;
mod openapi;
mod origins;
mod outbox;
mod paths;
mod schema;
mod settling;
mod slips;
mod states;
