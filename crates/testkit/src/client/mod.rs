//! The one HTTP client: requests that can be sent again, over connections of one's own.

mod answer;
mod call;
mod connection;
mod raw;

pub use answer::Answer;
pub use call::Call;
pub use connection::Connection;
pub use raw::{Raw, answers, sends_before_it_reads};
