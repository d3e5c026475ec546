//! A process of the scenario, under the preloaded library.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use laboratories::disk::this_program;
use testkit::process::ended;

use crate::TEST;
use crate::scenario::{PLAN, Plan};

/// Lets a process of the scenario live to its end, which comes soon.
pub(crate) fn live(plan: &Plan, directory: &Path, fault: Option<String>) -> Result<(), String> {
    let mut command = this_program(TEST, &plan.data);
    command.env(PLAN, serde_json::to_string(plan).expect("plans are plain"));
    command.env("DISK_PRELOAD_COUNT", &plan.counts).env("DISK_PRELOAD_LOG", directory.join("log"));
    if let Some(fault) = fault {
        command.env("DISK_PRELOAD_FAULT", fault);
    }
    let output = std::fs::File::create(directory.join("output")).expect("it can be made");
    let errors = output.try_clone().expect("it can be shared");
    let mut child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().expect("it can be started");
    let bound = Duration::from_secs(2 * plan.patience + 60);
    let status = ended(&mut child, bound);
    let said = || std::fs::read_to_string(directory.join("output")).unwrap_or_default();
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("the process died: {status}\n{}", said())),
        None => Err(format!("the process neither ended nor answered in {bound:?}\n{}", said())),
    }
}
