//! An outbox in a table of PostgreSQL.

// `outbox.rs` has what applications call, `statements.rs` what it sends, `schema.sql` the table.

mod clock;
mod outbox;
mod statements;

pub use outbox::PostgresOutbox;
