//! Throttles of log lines have names. A name with a slip would be a throttle of its own, and nothing would say so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::guide::root;

/// Adds the names in `.of("…")` of all sources below a directory.
fn names_in(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let found =
                text.split("lines.of(\"").chain(text.split("lines().of(\"")).filter(|part| part.len() < text.len());
            names.extend(
                found.filter_map(|rest| Some(rest.split_once("\")")?.0.to_owned())).filter(|name| is_name(name)),
            );
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

// Seeded fault: one place says "superceded".
#[test]
fn the_throttles_of_log_lines_have_the_names_of_their_list() {
    let mut used = BTreeSet::new();
    for sources in ["src", "crates/tower-idempotency-shared/src"] {
        names_in(&root().join(sources), &mut used);
    }
    let source = fs::read_to_string(root().join("src/slots/telemetry.rs")).unwrap();
    let (_, list) = source.split_once("/// one line a minute:\n").unwrap();
    let (list, _) = list.split_once("#[derive").unwrap();
    let listed: BTreeSet<_> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let of_the_store = ["unavailable", "full", "corrupt"].map(str::to_owned);
    used.extend(of_the_store);
    assert_eq!(used, listed);
}
