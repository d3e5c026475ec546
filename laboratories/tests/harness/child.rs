//! A child process, waited for within bounds.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// How often the child is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// How it ended. `None`: it did not in time, and was killed.
pub fn ended(child: &mut Child, bound: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("its own child") {
            return Some(status);
        }
        if began.elapsed() > bound {
            child.kill().expect("its own child");
            child.wait().expect("its own child");
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
