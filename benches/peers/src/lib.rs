//! What the benches over sockets share: servers and load, each in a process of its own. `cargo bench -p peers`.

pub mod load;
pub mod process;
