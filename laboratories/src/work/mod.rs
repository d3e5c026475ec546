//! What both disk laboratories let a store do, what is noted of it, and what has to hold afterwards.

pub mod key;
pub mod notes;
pub mod operations;
pub mod retry;
pub mod standing;
pub mod truth;
