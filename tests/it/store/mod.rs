//! What stores promise, what is answered while they fail, and what the one on disk keeps across restarts and damage
//! (promises 3, 5 and 7).

mod away;
mod connect;
mod contract;
mod damage;
mod damaged_disk;
mod directory;
mod fail_open;
mod lists;
mod lost_snapshot;
mod on_disk;
mod opening;
mod sweep;
