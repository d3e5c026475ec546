//! An outbox in a table of PostgreSQL.

// `outbox.rs` has what applications call, `statements.rs` what it sends on a connection of `connection.rs`, and
// `rows.rs` what it reads; `clock.rs` has the process's clocks, and `schema.sql` the table.

mod clock;
mod connection;
mod outbox;
mod rows;
mod statements;

pub use outbox::PostgresOutbox;
