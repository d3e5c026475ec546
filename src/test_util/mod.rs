//! For tests of your own handlers: time and faults on command. See [`guide::testing`](mod@crate::guide::testing).

mod call;
mod store;

pub use call::StoreCall;
pub use store::{Stall, TestStore};

#[doc(inline)]
pub use crate::clock::ManualClock;
