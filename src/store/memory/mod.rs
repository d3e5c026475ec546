//! The store that keeps records in memory, and its settings.

mod builder;
mod store;

pub use builder::MemoryStoreBuilder;
pub use store::MemoryStore;
