//! What the layer allocates, in a program of its own: no other test of this process allocates meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod budget;
mod pass_through;
