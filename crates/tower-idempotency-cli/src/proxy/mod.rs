//! `idem proxy`.

mod run;
mod settings;
mod store;

pub(crate) use run::run;
