//! Draws what the benches have measured, and writes their tables: `cargo run -p figures`, after `cargo bench` and
//! `cargo bench -p peers`.
//!
//! Takes the newest figures of each bench from the target directory, keeps them under `benches/figures/`, draws them
//! there, and puts the tables into `benches/README.md`, between its marks. What was not measured anew stays as it was.

mod plot;
mod report;
mod table;

use std::error::Error;
use std::fs;
use std::path::Path;

use testkit::bench::report::directory;

use report::Report;

/// In the order of their tables.
const BENCHES: [&str; 8] = ["passthrough", "replay", "first", "http", "growth", "contention", "fingerprint", "shared"];

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let benches = here.parent().ok_or("the package has moved")?;
    let mut reports = Vec::new();
    for bench in BENCHES {
        let (name, measured) = (format!("{bench}.json"), directory().join(format!("{bench}.json")));
        if measured.exists() {
            fs::copy(measured, here.join(&name))?;
        }
        let Ok(kept) = fs::read(here.join(&name)) else {
            eprintln!("{bench}: never measured");
            continue;
        };
        let report: Report = serde_json::from_slice(&kept)?;
        plot::draw(&report, here)?;
        reports.push(report);
    }
    let readme = benches.join("README.md");
    let text = table::put(&fs::read_to_string(&readme)?, &reports)?;
    fs::write(readme, text)?;
    Ok(())
}
