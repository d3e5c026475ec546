//! The pages name files of the repository.

use std::fs;

use super::guide::{pages, root};

const ROOTS: [&str; 3] = ["", "src", "crates/tower-idempotency-shared/src"];

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
