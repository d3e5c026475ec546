//! The arguments of a bench: its parts that are wanted, or the part of a process that it has started itself.

use testkit::bench::report::Report;

use crate::load;
use crate::process::{LOAD, SERVE};

/// The parts of a bench that are wanted: those that are named after `--`, or all.
pub struct Parts(Vec<String>);

impl Parts {
    /// Returns `None` in a process that a bench has started, after its part. `serve` gets a server's name and place.
    pub fn wanted(serve: impl FnOnce(&str, &str)) -> Option<Self> {
        let arguments: Vec<String> = std::env::args().collect();
        if let Some(place) = arguments.iter().position(|argument| argument == SERVE) {
            serve(&arguments[place + 1], &arguments[place + 2]);
            return None;
        }
        if let Some(place) = arguments.iter().position(|argument| argument == LOAD) {
            load::generate(&serde_json::from_str(&arguments[place + 1]).expect("a plan"));
            return None;
        }
        // Cargo's own argument is one of them, and names no part.
        Some(Self(arguments.into_iter().skip(1).filter(|argument| !argument.starts_with("--")).collect()))
    }

    pub fn has(&self, part: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|wanted| wanted == part)
    }

    /// Says the goals, and keeps the figures if all parts were wanted.
    pub fn finish(&self, report: Report) {
        if self.0.is_empty() { report.finish() } else { report.say() }
    }
}
