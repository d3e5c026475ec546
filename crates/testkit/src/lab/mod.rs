//! A layer around a handler, in process, and what a test does to its store.

mod app;
pub mod asked;
pub mod charges;
pub mod disk;
pub mod events;
pub mod listed;
pub mod operator;
pub mod steps;
pub mod strangers;
pub mod time;

pub use app::{
    Lab, Shedding, at_once, charge_print, done, effect, foreign, frames, gated, hold, id, insert_answer, insert_bytes,
    keyed, layer, no_run_is_left, numbered, on_disk, patient, post, rerun, settle, with,
};
