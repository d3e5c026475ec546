//! The store that keeps records in memory, and its settings.

mod builder;
mod store;
mod table;

pub use builder::MemoryStoreBuilder;
pub use store::MemoryStore;
