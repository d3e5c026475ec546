//! The promises of stores, the answers while they fail, and the records that the store on disk keeps across restarts
//! and damage (promises 3, 5 and 7).

mod away;
mod connect;
mod damage;
mod damaged_disk;
mod descriptors;
mod directory;
mod fail_open;
#[cfg(feature = "fjall")]
mod fjall_descriptors;
#[cfg(feature = "fjall")]
mod fjall_journal;
#[cfg(feature = "fjall")]
mod fjall_known;
mod gauges;
mod lists;
mod lost_snapshot;
mod on_disk;
mod opening;
#[cfg(feature = "fjall")]
mod other_engine;
mod sweep;
