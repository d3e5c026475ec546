//! A store that fails on command.

mod call;
mod store;

pub use call::StoreCall;
pub use store::{Stall, TestStore};
