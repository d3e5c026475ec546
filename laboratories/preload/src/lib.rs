//! A library to be loaded before the C library (`LD_PRELOAD`), by the disk laboratories of this project. It replaces
//! the functions by which a Rust program changes files, and does their work by bare system calls. It records those that
//! change a given directory, or files below it.
//!
//! By variables of the environment, all of them absent in any other process:
//!
//! | variable | |
//! |---|---|
//! | `DISK_PRELOAD_DIRECTORY` | the directory, absolute and without symbolic links; without it, nothing is done |
//! | `DISK_PRELOAD_LOG` | where every change is written down, in order and with its data: see `log.rs` |
//! | `DISK_PRELOAD_FAULT` | what fails: see `fault.rs` |
//! | `DISK_PRELOAD_COUNT` | where the calls that could have failed are counted: see `fault.rs` |
//! | `DISK_PRELOAD_LIE` | what is said to be done and is not: see `fault.rs` |
//!
//! What it doesn't see: relative paths, files that are written through a mapping, calls that go around the C library.
//! The laboratories show that nothing of that kind happens: the directory rebuilt from the log equals the real one.
#![cfg(target_os = "linux")]

mod calls;
mod fault;
mod lab;
mod log;
mod system;
