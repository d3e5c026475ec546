//! The embedded stores, as far as tests use what they have in common. So one test runs on each of them:
//!
//! ```ignore
//! on_both!(a_record_is_there_after_a_restart);
//! async fn a_record_is_there_after_a_restart<D: Disk>() {
//!     let (_directory, store) = on_disk(D::builder());
//! ```

mod forward;
mod on_both;
#[cfg(feature = "fjall")]
mod on_fjall;
mod on_sled;
mod traits;

pub use traits::{Disk, DiskBuilder, Sent, Table, View};
