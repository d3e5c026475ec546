//! An empty library: a package must have something that can be built without its benches. `cargo bench -p peers`.
