//! The directory of a store, and its files outside of the engine.
//!
//! - `directory.rs`: makes and checks the directory, and locks it by a file of the store's own before the engine
//!   touches it. That file says whether a first opening was ever complete. It also sets aside the remains of an
//!   unfinished one.
//! - `open_files.rs`: raises the limit of open files.
//! - `checkpoint.rs`: a file that says which step was durable, by which an opening finds out whether the end of the
//!   engine's log is lost.
//! - `checkpointer.rs`: writes the checkpoint once a second, so that no batch waits for it.
//! - `shortage.rs`: says whether the process has descriptors left.

pub(super) mod checkpoint;
pub(super) mod checkpointer;
pub(in crate::store) mod directory;
#[cfg(unix)]
pub(in crate::store) mod open_files;
#[cfg(feature = "fjall")]
pub(in crate::store) mod shortage;
