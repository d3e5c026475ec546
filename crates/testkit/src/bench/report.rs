//! The report of a bench: its rows and goals, on the terminal and as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::estimate::{Estimate, is_whole};

/// The figures of one bench.
#[derive(Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    question: &'static str,
    command: &'static str,
    taken: u64,
    machine: BTreeMap<&'static str, String>,
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Row {
    /// The rows of a table, and of a plot, that belong together.
    group: String,
    name: String,
    unit: &'static str,
    #[serde(flatten)]
    estimate: Estimate,
}

#[derive(Debug, Serialize)]
struct Goal {
    name: String,
    #[serde(flatten)]
    estimate: Estimate,
    op: &'static str,
    bound: f64,
    /// `met`, `missed`, or `void`.
    met: &'static str,
}

impl Report {
    pub fn new(bench: &'static str, command: &'static str, question: &'static str) -> Self {
        println!("{question}\n");
        let taken = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        Self { bench, question, command, taken, machine: machine(), rows: Vec::new(), goals: Vec::new() }
    }

    pub fn row(&mut self, group: &str, name: &str, unit: &'static str, estimate: Estimate) {
        let said = estimate.written();
        println!("{group:<34} {name:<44} {said:>28} {unit}");
        self.rows.push(Row { group: group.to_owned(), name: name.to_owned(), unit, estimate });
    }

    /// Met if the median is at most `bound`.
    pub fn at_most(&mut self, name: &str, estimate: Estimate, bound: f64) {
        self.goal(name, estimate, "<=", bound, estimate.median <= bound);
    }

    /// Met if it is not distinguishably less than `bound`: if its interval reaches it.
    pub fn at_least(&mut self, name: &str, estimate: Estimate, bound: f64) {
        self.goal(name, estimate, ">=", bound, estimate.high >= bound);
    }

    /// Nothing can be said of the goals that have this in their names: what they are compared with is not what it
    /// should be.
    pub fn void(&mut self, part: &str) {
        self.goals.iter_mut().filter(|goal| goal.name.contains(part)).for_each(|goal| goal.met = "void");
    }

    fn goal(&mut self, name: &str, estimate: Estimate, op: &'static str, bound: f64, met: bool) {
        let met = if met { "met" } else { "missed" };
        self.goals.push(Goal { name: name.to_owned(), estimate, op, bound, met });
    }

    /// Says the goals.
    pub fn say(&self) {
        println!();
        for Goal { name, estimate, op, bound, met } in &self.goals {
            println!("goal {}/{name}: {} ({op} {bound}) {met}", self.bench, estimate.written());
        }
    }

    /// Says the goals, and leaves the figures where they are plotted from.
    pub fn finish(self) {
        self.say();
        if !is_whole() {
            println!("\na quick look: the figures are not kept");
            return;
        }
        let directory = directory();
        std::fs::create_dir_all(&directory).expect("the target directory can be written to");
        let json = serde_json::to_string_pretty(&self).expect("figures can be written");
        std::fs::write(directory.join(format!("{}.json", self.bench)), json + "\n").expect("so can its files");
    }
}

/// The directory in which benches leave their figures.
pub fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")).join("bench")
}

/// The machine and the versions on which the figures depend.
fn machine() -> BTreeMap<&'static str, String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    BTreeMap::from([
        ("processor", processor()),
        ("cores", cores.to_string()),
        ("system", std::env::consts::OS.to_owned()),
        ("compiler", compiler()),
    ])
}

pub fn processor() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or("unknown", |(_, model)| model.trim()).to_owned()
}

pub fn compiler() -> String {
    let version = std::process::Command::new("rustc").arg("--version").output();
    version.map_or_else(|_| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
