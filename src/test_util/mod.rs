//! For tests of your own handlers: time and faults on command. See [`guide::testing`](mod@crate::guide::testing).

mod call;
mod store;

pub use call::StoreCall;
pub use store::{Stall, TestStore};

#[doc(inline)]
pub use crate::clock::ManualClock;

/// Keeps an item of the crates that the tests share, if this crate has the feature `fjall`.
#[doc(hidden)]
#[cfg(feature = "fjall")]
#[macro_export]
macro_rules! with_fjall {
    ($item:item) => {
        $item
    };
}

/// Keeps no item, because this crate has no feature `fjall`.
#[doc(hidden)]
#[cfg(not(feature = "fjall"))]
#[macro_export]
macro_rules! with_fjall {
    ($item:item) => {};
}
