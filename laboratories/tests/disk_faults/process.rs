//! A process of the scenario, under the preloaded library.

use std::path::Path;
use std::time::Duration;

use laboratories::disk;

use crate::TEST;
use crate::scenario::{PLAN, Plan};

/// Runs a process of the scenario to its end, which comes soon.
pub(crate) fn live(plan: &Plan, directory: &Path, fault: Option<String>) -> Result<(), String> {
    let mut command = disk::this_program(TEST, &plan.data);
    command.env(PLAN, serde_json::to_string(plan).expect("plans are plain"));
    command.env("DISK_PRELOAD_COUNT", &plan.counts).env("DISK_PRELOAD_LOG", directory.join("log"));
    if let Some(fault) = fault {
        command.env("DISK_PRELOAD_FAULT", fault);
    }
    let bound = Duration::from_secs(2 * plan.timeout + 60);
    match disk::live(command, directory, bound) {
        (Some(status), _) if status.success() => Ok(()),
        (Some(status), said) => Err(format!("the process died: {status}\n{said}")),
        (None, said) => Err(format!("the process neither ended nor answered in {bound:?}\n{said}")),
    }
}
