//! The routes of the server, their handlers, and their errors.

pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod charges;
pub(crate) mod clients;
pub(crate) mod errors;
pub(crate) mod fields;
pub(crate) mod look_up;
pub(crate) mod metrics;
pub(crate) mod refunds;
pub(crate) mod rejections;
pub(crate) mod routes;
pub(crate) mod sources;
