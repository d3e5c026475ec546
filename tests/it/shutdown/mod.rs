//! `Shutdown` ends a server step by step and in bounded time, without losing what was answered.

mod steps;
mod under_load;
