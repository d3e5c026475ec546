#![doc = include_str!("../README.md")]

mod answer;
mod graphql;
mod grpc;
mod json_rpc;
mod judge;
#[doc(hidden)]
pub mod pointer;

pub use answer::{Answer, Says};
pub use grpc::{grpc_status, is_of_grpc};
pub use judge::{BodyJudge, Rule, UnknownJudge, WrongRule};

#[cfg(test)]
mod tests;
