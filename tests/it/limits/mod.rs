//! The bounds of the layer: bodies, live runs and full stores. They refuse claims and never completions (promise 7).

mod body;
mod full;
mod log_lines;
mod overload;
mod shares;
mod stalled_writer;
mod unsaved;
