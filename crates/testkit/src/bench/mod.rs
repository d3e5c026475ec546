//! Shared by the benches: estimates, goals, and the figures that a bench leaves behind.

pub mod callgrind;
pub mod cpu;
pub mod disk;
pub mod estimate;
pub mod exchange;
pub mod lists;
pub mod load;
pub mod minimum;
pub mod report;
pub mod sync;

/// Returns the argument that says what of a bench is wanted. Cargo's own argument is one of them, and names nothing.
pub fn wanted() -> Option<String> {
    std::env::args().skip(1).find(|argument| !argument.starts_with("--"))
}
