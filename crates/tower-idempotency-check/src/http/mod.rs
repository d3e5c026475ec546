//! HTTP/1.1, as the checks need it: connections that are opened, reused and broken on purpose.

pub(crate) mod address;
pub(crate) mod connection;
pub(crate) mod failure;
pub(crate) mod message;
mod tls;
pub(crate) mod volatile;
