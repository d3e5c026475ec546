//! Throttles of log lines have names. A name with a slip would be a throttle of its own, and nothing would say so.

use std::collections::BTreeSet;
use std::fs;

use super::files::sources;
use super::guide::root;

// Seeded fault: one place says "superceded".
#[test]
fn the_throttles_of_log_lines_have_the_names_of_their_list() {
    let mut used = BTreeSet::new();
    for path in ["src", "crates/tower-idempotency-shared/src"].iter().flat_map(|room| sources(&root().join(room))) {
        let text = fs::read_to_string(&path).unwrap();
        for (at, open) in text.match_indices(".of(\"") {
            if text[..at].ends_with("lines") || text[..at].ends_with("lines()") {
                used.insert(text[at + open.len()..].split('"').next().unwrap().to_owned());
            }
        }
    }
    let source = fs::read_to_string(root().join("src/slots/telemetry.rs")).unwrap();
    let (_, list) = source.split_once("/// one line a minute:\n").unwrap();
    let (list, _) = list.split_once("#[derive").unwrap();
    let listed: BTreeSet<_> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let of_the_store = ["unavailable", "full", "corrupt"].map(str::to_owned);
    used.extend(of_the_store);
    assert_eq!(used, listed);
}
