//! The design document's table of time limits has the values of the code.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

const PAGE: &str = include_str!("../../../docs/design.md");

/// The value that `name` has in the source file: a constant's, an option's default, or a setting of PostgreSQL.
fn value_in(source: &str, name: &str) -> Option<Duration> {
    let setting = source.split_once(&format!("SET {name} = '")).and_then(|(_, rest)| number(rest.split_once("s'")?.0));
    if let Some(seconds) = setting {
        return Some(Duration::from_secs(seconds.into()));
    }
    let text = |before: &str, end: [char; 2]| {
        let (_, rest) = source.split_once(before)?;
        rest.split(end).next()
    };
    let constant = text(&format!("const {name}: Duration = "), [';', '\n']);
    let expression = constant.or_else(|| {
        source.match_indices(&format!(" {name}: ")).find_map(|(at, before)| {
            let rest = &source[at + before.len()..];
            let line = rest.lines().next()?.trim_end_matches([',', ' ', '}']);
            line.contains(['(', '*']).then_some(line)
        })
    })?;
    evaluated(source, expression)
}

/// Evaluates the few expressions that limits are written as.
fn evaluated(source: &str, expression: &str) -> Option<Duration> {
    let expression = expression.trim();
    if let Some((left, right)) = expression.split_once(".saturating_add(") {
        return Some(evaluated(source, left)? + evaluated(source, right.strip_suffix(')')?)?);
    }
    if let Some(inner) = expression.strip_prefix("OnInFlight::Wait(") {
        return evaluated(source, inner.strip_suffix(')')?);
    }
    let number_in = |unit: &str| number(expression.strip_prefix(unit)?.strip_suffix(')')?);
    number_in("Duration::from_secs(")
        .map(|seconds| Duration::from_secs(seconds.into()))
        .or_else(|| number_in("Duration::from_millis(").map(|millis| Duration::from_millis(millis.into())))
        .or_else(|| {
            let (left, factor) = expression.rsplit_once(" * ")?;
            Some(evaluated(source, left)? * number(factor)?)
        })
        .or_else(|| value_in(source, expression))
        .or_else(|| value_in(include_str!("../../../src/timeouts.rs"), expression))
}

/// A number, or a product of numbers.
fn number(text: &str) -> Option<u32> {
    text.replace('_', "").split(" * ").map(|factor| factor.parse::<u32>().ok()).product()
}

#[test]
fn the_table_of_time_limits_has_the_values_of_the_code_and_each_is_longer_than_it_has_to_be() {
    let head = "| limit | where | default | when it is over | longer than |\n|---|---|---|---|---|\n";
    let (_, table) = PAGE.split_once(head).expect("the table is there");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split('|').map(|cell| cell.trim()).collect()).collect();
    let mut limits = HashMap::new();
    for row in &rows {
        let (name, file, default) = (row[1].trim_matches('`'), row[2].trim_matches('`'), row[3]);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let value = value_in(&source, name).unwrap_or_else(|| panic!("{file} has no limit `{name}`"));
        let written = default.strip_suffix(" s").and_then(|seconds| seconds.parse().ok());
        assert_eq!(written.map(Duration::from_secs_f64), Some(value), "{name} in {file}, and in docs/design.md");
        assert!(limits.insert(name, value).is_none(), "`{name}` is there twice");
    }
    assert!(limits.len() > 15, "{limits:?}");
    for row in &rows {
        let name = row[1].trim_matches('`');
        let parts: Vec<_> = row[5].split('`').collect();
        for shorter in parts.chunks_exact(2) {
            // `6 × `call_timeout``: at least six times as long.
            let factor = shorter[0].trim_matches([',', ' ']).strip_suffix(" ×").and_then(number);
            let is_longer = match factor {
                Some(factor) => limits[name] >= limits[shorter[1]] * factor,
                None => limits[name] > limits[shorter[1]],
            };
            assert!(is_longer, "{name} has to be longer than {}{}", shorter[0], shorter[1]);
        }
    }
}

/// The names of the constants that are durations, without those of tests.
fn durations(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let tests = ["#[cfg(test)]\nmod ", "#[cfg(all(test, "].iter().filter_map(|begin| text.find(begin)).min();
    let product = &text[..tests.unwrap_or(text.len())];
    let code = product.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = code.filter_map(|line| line.split_once(": Duration = ")?.0.rsplit_once("const "));
    named.map(|(_, name)| name.to_owned()).collect()
}

#[test]
fn each_duration_in_the_code_is_in_the_section_on_time_limits() {
    let (_, section) = PAGE.split_once("## 11. Time limits").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "crates/tower-idempotency-shared/src", "crates/tower-idempotency-postgres/src"];
    let mut directories = Vec::from(sources.map(|directory| root.join(directory)));
    let mut found = 0;
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let is_of_tests = path.file_stem().is_some_and(|name| name == "tests");
            if path.is_dir() && !is_of_tests {
                directories.push(path);
            } else if !is_of_tests && path.extension().is_some_and(|extension| extension == "rs") {
                for name in durations(&path) {
                    found += 1;
                    assert!(section.contains(&format!("`{name}`")), "{name} in {}", path.display());
                }
            }
        }
    }
    assert!(found > 60, "{found}");
}
