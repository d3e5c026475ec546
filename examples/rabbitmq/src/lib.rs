//! Orders come in over `RabbitMQ`, and mails go out, while acknowledgements are lost: with this crate each mail is sent
//! once, and without it twice. `consumer.rs` is what a service needs; the rest breaks its connections and counts.

#![allow(missing_docs, reason = "an example")]

mod broker;
mod consumer;
mod mailer;
mod run;

pub use broker::Broker;
pub use run::{Sum, run};
