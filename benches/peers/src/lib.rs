//! What the benches share: servers and load, each in a process of its own; and what is measured of a shared store, over
//! any database. `cargo bench -p peers`.

pub mod load;
pub mod minimum;
pub mod parts;
pub mod process;
pub mod puts;
pub mod stores;
pub mod trips;
pub mod turns;
pub mod waiting;
