//! The design document's table of time limits says what the code says.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

const PAGE: &str = include_str!("../../../docs/design.md");

/// The value that `name` has in the source file: a constant's, or an option's default.
fn value_in(source: &str, name: &str) -> Option<Duration> {
    let text = |before: &str, end: [char; 2]| {
        let (_, rest) = source.split_once(before)?;
        rest.split(end).next().filter(|expression| expression.contains(['(', '*']))
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
    if let Some((left, factor)) = expression.rsplit_once(" * ") {
        return Some(evaluated(source, left)? * number(factor)?);
    }
    let number_in = |unit: &str| number(expression.strip_prefix(unit)?.strip_suffix(')')?);
    number_in("Duration::from_secs(")
        .map(|seconds| Duration::from_secs(seconds.into()))
        .or_else(|| number_in("Duration::from_millis(").map(|millis| Duration::from_millis(millis.into())))
        .or_else(|| value_in(source, expression))
}

fn number(text: &str) -> Option<u32> {
    text.replace('_', "").parse().ok()
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
        for shorter in row[5].split('`').skip(1).step_by(2) {
            assert!(limits[name] > limits[shorter], "{name} has to be longer than {shorter}");
        }
    }
}
