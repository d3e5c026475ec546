#![doc = include_str!("../README.md")]

mod answer;
mod body;
mod clients;
mod connections;
mod head;
mod monitor;
mod places;
mod proxy;
mod read_on;
mod reading;
mod upstream;

pub use head::is_passed_on;
pub use monitor::recorder;
pub use proxy::{Proxy, ProxyService};
pub use upstream::{Upstream, UpstreamError};
