//! Draws the figures of the benches, and writes their tables: `cargo run -p figures`, after `cargo bench` and `cargo
//! bench -p peers`.
//!
//! It takes the newest figures of each bench from the target directory, keeps them in `data/`, draws them in `plots/`,
//! and puts the tables into `benches/README.md`, between its marks. A bench without new figures stays as it was.

mod plot;
mod report;
mod table;

use std::error::Error;
use std::fs;
use std::path::Path;

use testkit::bench::report::directory;

use report::Report;

/// The benches, in the order of their tables.
const BENCHES: [&str; 15] = [
    "passthrough", "replay", "first", "http", "cpu-glibc", "cpu-jemalloc", "cpu-mimalloc", "growth", "lists",
    "contention", "fingerprint", "client", "shared", "redis", "soak-fjall",
];

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let benches = here.parent().ok_or("the package has moved")?;
    let mut reports = Vec::new();
    for bench in BENCHES {
        let name = format!("{bench}.json");
        let (measured, kept) = (directory().join(&name), here.join("data").join(&name));
        if measured.exists() {
            fs::copy(measured, &kept)?;
        }
        let Ok(kept) = fs::read(kept) else {
            eprintln!("{bench}: never measured");
            continue;
        };
        let report: Report = serde_json::from_slice(&kept)?;
        plot::draw(&report, &here.join("plots"))?;
        reports.push(report);
    }
    let readme = benches.join("README.md");
    let text = table::put(&fs::read_to_string(&readme)?, &reports)?;
    fs::write(readme, text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use testkit::bench::estimate::Estimate;

    /// From tables of the sign test, and for many values from the binomial coefficients themselves.
    #[test]
    fn an_interval_leaves_out_two_and_a_half_per_cent_on_each_side() {
        for (count, left_out) in [(1, 0), (5, 0), (6, 0), (21, 5), (100, 39), (3_197, 1_542)] {
            let estimate = Estimate::of((0..count).map(f64::from).collect());
            let expected = (f64::from(left_out), f64::from(count - 1 - left_out));
            assert_eq!((estimate.low, estimate.high), expected, "{count} values");
        }
    }
}
