//! What the docs quote of the example with all SQL clients is what that compiles.

use std::collections::BTreeSet;
use std::fs;

use super::files::sources;
use super::guide::root;

const PAGE: &str = include_str!("../../../docs/exactly-once.md");

/// The lines of a source, without their indentation.
fn lines(source: &str) -> BTreeSet<&str> {
    source.lines().map(str::trim).collect()
}

/// The lines of the blocks of code that rustdoc does not compile, without what makes them comments.
fn ignored(text: &str) -> Vec<&str> {
    let bare =
        text.lines().map(|line| line.trim_start().trim_start_matches("//").trim_start_matches(['/', '!']).trim());
    let (mut quoted, mut block) = (Vec::new(), None);
    for line in bare {
        match (line.strip_prefix("```"), block) {
            (Some(kind), None) => block = Some(kind),
            (Some(_), Some(_)) => block = None,
            (None, Some("rust,ignore")) => quoted.push(line),
            (None, _) => {}
        }
    }
    quoted
}

// Seeded faults: a line of the page, and one of the example, has another name of a method.
#[test]
fn each_line_of_the_table_of_clients_is_in_its_example() {
    let (_, table) = PAGE.split_once("| your client | the line | the example |\n|---|---|---|\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let mut examples = 0;
    for row in table.lines() {
        // A table needs them so.
        let row = &row.replace("\\|", "|");
        let Some((row, label)) = row.trim_end_matches("] |").rsplit_once("][") else { continue };
        let (_, target) = PAGE.split_once(&format!("\n[{label}]: ")).unwrap();
        let example = fs::read_to_string(root().join("docs").join(target.lines().next().unwrap())).unwrap();
        let (example, quoted) = (lines(&example), row.split('`').skip(1).step_by(2));
        let missing: Vec<_> = quoted.filter(|line| !example.contains(line)).collect();
        assert_eq!(missing, [""; 0], "{label}");
        assert!(row.contains('`'), "{row}");
        examples += 1;
    }
    // Each module of the example is in the table.
    assert_eq!(examples, sources(&root().join("examples/sql_clients/src")).len() - 1);
}

#[test]
fn code_that_rustdoc_does_not_compile_is_that_of_the_example() {
    let examples = ["sql_clients", "exactly_once_sqlx"].map(|name| root().join(format!("examples/{name}/src")));
    let example = examples.iter().flat_map(|directory| sources(directory));
    let example: String = example.map(|path| fs::read_to_string(path).unwrap()).collect();
    let (example, mut count) = (lines(&example), 0);
    let mut check = |name: &str, text: &str| {
        let quoted = ignored(text);
        let missing: Vec<_> = quoted.iter().filter(|line| !example.contains(*line)).collect();
        assert!(missing.is_empty(), "{name}: {missing:#?}");
        count += quoted.len();
    };
    check("docs/exactly-once.md", PAGE);
    for name in ["postgres", "outbox", "shared"] {
        for path in sources(&root().join(format!("crates/tower-idempotency-{name}/src"))) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                !text.contains("/// ```text") && !text.contains("//! ```text"),
                "{}: quote the example",
                path.display()
            );
            check(&path.display().to_string(), &text);
        }
    }
    assert!(count >= 9, "{count}");
}
