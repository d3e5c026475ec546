//! A library to be loaded before the C library (`LD_PRELOAD`), by the disk laboratories of this project. It replaces
//! the functions by which a Rust program changes files, and does their work by bare system calls. It records those that
//! change a given directory, or files below it.
//!
//! By variables of the environment, all of them absent in any other process:
//!
//! | variable | |
//! |---|---|
//! | `DISK_PRELOAD_DIRECTORY` | the directory, absolute and without symbolic links; without it, nothing is done |
//! | `DISK_PRELOAD_LOG` | the file that records every change, in order and with its data: see `log.rs` |
//! | `DISK_PRELOAD_FAULT` | the calls that fail: see `fault.rs` |
//! | `DISK_PRELOAD_COUNT` | the file with the counts of calls that could have failed: see `fault.rs` |
//! | `DISK_PRELOAD_LIE` | the calls that succeed without doing their work: see `fault.rs` |
//!
//! It doesn't see relative paths, files that are written through a mapping, and calls that bypass the C library.
//! The laboratories show that nothing of that kind happens: the directory rebuilt from the log equals the real one.
#![cfg(target_os = "linux")]

mod calls;
mod fault;
mod lab;
mod log;
mod system;
