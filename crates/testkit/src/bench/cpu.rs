//! The CPU time of processes, as Linux counts it.

use std::fs;

/// Returns the CPU time of a process so far, in µs, over all its threads that have not ended.
pub fn cpu_time(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let nanos = threads.filter_map(|thread| {
        let schedule = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        schedule.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e3
}

/// Returns the same for a server that starts a process for each connection: of it and of its children that run.
///
/// # Panics
/// If there is no such process.
pub fn cpu_time_with_children(pid: u32) -> f64 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs, on Linux");
    let children = children.split_whitespace().map(|child| child.parse().expect("a process has a number"));
    cpu_time(pid) + children.map(cpu_time).sum::<f64>()
}
