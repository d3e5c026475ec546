//! What bounds the layer: bodies, live runs and full stores; it refuses claims and never completions (promise 7).

mod body;
mod full;
mod log_lines;
mod overload;
mod shares;
mod stalled_writer;
mod unrecorded;
