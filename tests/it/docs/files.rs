//! The pages name files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

use super::guide::{pages, root};

const ROOTS: [&str; 7] = [
    "",
    "src",
    "src/store/embedded",
    "crates/tower-idempotency-shared/src",
    "crates/tower-idempotency-postgres/src",
    "crates/tower-idempotency-cli/src",
    "crates/tower-idempotency-outbox/src",
];

/// The Rust sources below a directory.
pub(super) fn sources(directory: &Path) -> Vec<PathBuf> {
    let (mut sources, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
    }
    sources
}

#[test]
fn the_files_that_the_pages_name_are_there() {
    let (mut named, mut missing) = (0, Vec::new());
    for page in pages().into_iter().chain([root().join("CONTRIBUTING.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let is_file = name.contains('/') && [".rs", ".sql", ".json"].iter().any(|ending| name.ends_with(ending));
            if !is_file || name.contains([' ', '*', '\n']) {
                continue;
            }
            named += 1;
            if !ROOTS.iter().any(|part| root().join(part).join(name).exists()) {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(named > 60, "{named} files are named");
    assert_eq!(missing, [""; 0], "of {named}");
}

/// A new file is found by what it is for, and not by a search through its neighbours.
#[test]
fn the_journey_names_each_file_of_the_server_and_the_engine() {
    let map = fs::read_to_string(root().join("docs/journey.md")).unwrap();
    let entries = ["server", "engine"].map(|room| fs::read_dir(root().join("src").join(room)).unwrap());
    let paths = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
    let names = paths.map(|path| path.strip_prefix(root().join("src")).unwrap().display().to_string());
    // A folder is named itself, or by a file in it.
    let is_named = |name: &String| map.contains(&format!("`{name}`")) || map.contains(&format!("`{name}/"));
    let missing: Vec<_> = names.filter(|name| !name.ends_with("/mod.rs") && !is_named(name)).collect();
    assert_eq!(missing, [""; 0]);
}
