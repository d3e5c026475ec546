//! PostgreSQL servers of one's own.

mod dump;
mod fake_clock;
mod programs;
mod server;
mod shared;
mod template;

pub use fake_clock::FakeClock;
pub use server::PostgresServer;
pub use shared::{own_server, shared_server};
