//! The table, the rights on it, and its opening.

pub(crate) mod by_hand;
pub(crate) mod encodings;
pub(crate) mod migrate;
pub(crate) mod migrations;
pub(crate) mod opening;
pub(crate) mod plans;
pub(crate) mod rights;
pub(crate) mod roles;
pub(crate) mod settings;
pub(crate) mod view;
