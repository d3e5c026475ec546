//! Sessions: leases, deaths, and the watching of other processes.

mod bounds;
mod closing;
mod deaths;
mod lease;
mod span;
mod watching;
