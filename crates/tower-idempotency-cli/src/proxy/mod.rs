//! `idem proxy`.

mod cors;
mod run;
mod settings;
mod store;
mod token;
mod whose;

pub(crate) use run::run;
