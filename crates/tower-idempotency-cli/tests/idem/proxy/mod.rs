//! `idem proxy` in front of services that are written in other languages.

mod checked;
mod killed;
mod parts;
mod shared;
mod started;
