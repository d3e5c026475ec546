//! Opens the store of a command.

mod namespace;
mod postgres;
mod sled;
mod store;
mod tls;

pub(crate) use postgres::{Connected, connect, prepared};
pub(crate) use sled::{opened, owner_is_other, reason};
pub(crate) use store::Opened;
