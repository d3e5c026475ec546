//! The table of failures names tests that exist, for every step and every fault.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::files::sources;
use super::guide::root;

const FAULTS: [&str; 10] = [
    "message lost", "answer lost", "process killed", "thread paused", "disk full", "disk error", "power cut",
    "store away", "clock jump", "duplicate",
];

struct Cell {
    step: String,
    fault: String,
    /// The names between backticks, or the text in their place.
    tests: Result<Vec<String>, String>,
}

fn cells() -> Vec<Cell> {
    let page = fs::read_to_string(root().join("src/failures.rs")).unwrap();
    let mut step = String::new();
    let mut cells = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("//! ")) {
        if let Some(title) = line.strip_prefix("# ") {
            title.clone_into(&mut step);
        }
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let &["", fault, outcome, test, ""] = columns.as_slice() else { continue };
        if fault == "fault" || fault.starts_with("---") {
            continue;
        }
        assert!(!outcome.is_empty(), "{step}, {fault}: what happens?");
        let name = |name: &str| Some(name.strip_prefix('`')?.strip_suffix('`')?.to_owned());
        let tests = test.split(", ").map(name).collect::<Option<_>>().ok_or_else(|| test.to_owned());
        cells.push(Cell { step: step.clone(), fault: fault.to_owned(), tests });
    }
    cells
}

/// The functions under a directory that follow a test's attribute, or the macro that makes tests of them.
fn tests_under(directory: &Path, found: &mut HashSet<String>) {
    for path in sources(directory) {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let below = lines.windows(2).filter(|pair| {
            let above = pair[0];
            let is_each = above.starts_with("on_both!(") || above == ");";
            is_each || above.starts_with("#[test]") || above.starts_with("#[tokio::test")
        });
        found.extend(below.filter_map(|pair| name_of(pair[1])));
    }
}

fn name_of(line: &str) -> Option<String> {
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    Some(rest.split(['(', '<']).next()?.to_owned())
}

#[test]
fn every_step_has_a_cell_for_every_fault() {
    let cells = cells();
    let steps: Vec<_> = cells.chunk_by(|one, other| one.step == other.step).collect();
    assert!(steps.len() >= 10, "{}", steps.len());
    for step in steps {
        let faults: Vec<_> = step.iter().map(|cell| cell.fault.as_str()).collect();
        assert_eq!(faults, FAULTS, "{}", step[0].step);
    }
}

#[test]
fn every_named_test_exists_and_what_names_none_says_that_it_is_a_gap() {
    let mut tests = HashSet::new();
    for directory in ["tests", "src", "laboratories", "examples/payment_server/tests"] {
        tests_under(&root().join(directory), &mut tests);
    }
    assert!(tests.len() > 200, "the search finds tests: {}", tests.len());
    let cells = cells();
    let mut gaps = 0;
    let mut missing = Vec::new();
    for Cell { step, fault, tests: named } in &cells {
        match named {
            Ok(names) => {
                let unknown = names.iter().filter(|name| !tests.contains(*name));
                missing.extend(unknown.map(|name| format!("{step}, {fault}: {name}")));
            }
            Err(text) => {
                assert!(text.starts_with("*gap*"), "{step}, {fault}: {text:?}");
                gaps += 1;
            }
        }
    }
    assert!(missing.is_empty(), "tests that do not exist: {missing:#?}");
    println!("failure table: cells {}, gaps {gaps}", cells.len());
}
