//! Opens the store of a command.

mod directory;
mod namespace;
mod outbox;
mod postgres;
mod redis;
mod store;
mod tls;

#[cfg(feature = "proxy")]
pub(crate) use directory::by_engine;
pub(crate) use directory::{Embedded, embedded, not_opened, opened, owner_is_other, reason, refuse_other_owner};
pub(crate) use namespace::check as check_namespace;
pub(crate) use outbox::{in_directory as outbox_in_directory, in_postgres as outbox_in_postgres, nowhere_else};
pub(crate) use postgres::{Connected, connect, prepared};
pub(crate) use redis::{
    existing as existing_redis, opened as opened_redis, patient as patient_redis, prepared as prepared_redis,
};
pub(crate) use store::Opened;
