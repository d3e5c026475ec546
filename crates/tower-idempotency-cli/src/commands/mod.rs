//! The commands, but `doctor`.

mod change;
pub(crate) mod copy;
pub(crate) mod find;
pub(crate) mod forget;
mod look_up;
pub(crate) mod ls;
pub(crate) mod settle;
pub(crate) mod show;
pub(crate) mod verify;
