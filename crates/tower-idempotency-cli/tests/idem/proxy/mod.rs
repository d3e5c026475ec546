//! `idem proxy` in front of services that are written in other languages.

mod agents;
mod checked;
mod killed;
mod limits;
mod parts;
mod shared;
mod started;
