//! What the tests share.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

pub mod lab;
pub mod process;
