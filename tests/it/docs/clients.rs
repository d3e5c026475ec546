//! The page for clients has a row for each rejection, with the statuses that it has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use testkit::lab::layer;
use tower_idempotency::RejectionKind;
use tower_idempotency::server::KeyFrom;

const PAGE: &str = include_str!("../../../docs/clients.md");

/// The rows of the table of rejections: the name, the statuses, what happened, what to do.
fn rows() -> Vec<Vec<&'static str>> {
    let (_, table) = PAGE.split_once("| problem | status | what happened | what to do |\n|---|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// For each kind of rejection and each of its statuses, what its problem says of the same key, as a layer documents it.
fn documented() -> BTreeMap<String, BTreeMap<String, BTreeSet<bool>>> {
    let api = json!({
        "openapi": "3.1.0",
        "info": { "title": "Payments", "version": "1" },
        "paths": { "/charges": { "post": { "responses": {} } } },
    });
    let mut api = serde_json::from_value(api).unwrap();
    layer().require_key(true).key_from(KeyFrom::form_field("key")).document(&mut api);
    let api = serde_json::to_value(api).unwrap();
    let mut kinds = BTreeMap::<_, BTreeMap<_, BTreeSet<_>>>::new();
    for (status, response) in api["paths"]["/charges"]["post"]["responses"].as_object().unwrap() {
        for (kind, example) in response["content"]["application/problem+json"]["examples"].as_object().unwrap() {
            let same_key = example["value"]["retry_with_same_key"].as_bool().unwrap();
            kinds.entry(kind.clone()).or_default().entry(status.clone()).or_default().insert(same_key);
        }
    }
    kinds
}

/// Whether the page of meanings says of each answer with this name that the operation may have been done, and of none
/// that it asks for another try.
fn may_have_run(name: &str) -> bool {
    let rows = testkit::meanings::rejections();
    let says: Vec<_> = rows.iter().filter(|row| row.get("problem") == name).map(|row| row.get("says")).collect();
    assert!(!says.is_empty(), "{name}");
    says.iter().all(|says| says.starts_with("unknown") || says.starts_with("done"))
}

#[test]
fn the_page_for_clients_has_a_row_for_each_rejection_with_its_statuses() {
    let (rows, documented) = (rows(), documented());
    let named: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let kinds = RejectionKind::ALL.iter().chain([&RejectionKind::Custom]).map(|kind| kind.slug());
    assert_eq!(BTreeSet::from_iter(&named), kinds.collect::<Vec<_>>().iter().collect());
    assert_eq!(named.len(), RejectionKind::ALL.len() + 1, "each once");
    for (name, row) in named.into_iter().zip(&rows).filter(|(name, _)| *name != RejectionKind::Custom.slug()) {
        let statuses: Vec<_> = row[1].split(", ").collect();
        assert_eq!(statuses, documented[name].keys().collect::<Vec<_>>(), "{name}");
        let all: BTreeSet<_> = documented[name].values().flatten().copied().collect();
        let says = row[3].contains("same key");
        assert_eq!(says, all.contains(&true), "{name}: does `retry_with_same_key` say so?");
        // What ran, or may have run, must not run again under another key.
        let warns = row[3].contains("A new key") || row[3].contains("a new key would");
        assert_eq!(warns, may_have_run(name), "{name}");
    }
}

#[test]
fn the_page_for_clients_names_the_headers_that_scripts_send_and_read() {
    let (_, section) = PAGE.split_once("\n## In a browser\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let headers = layer().cors_headers();
    let named: BTreeSet<_> = section.split('`').skip(1).step_by(2).map(str::to_lowercase).collect();
    for header in headers.allow.iter().chain(&headers.expose) {
        assert!(named.contains(header.as_str()), "{header}");
    }
}

#[test]
fn the_page_for_clients_and_its_programs_try_again_after_the_statuses_that_the_page_of_meanings_says() {
    let rows = testkit::meanings::statuses();
    let again = rows.iter().filter(|(_, row)| row.get("tries again") == "yes").map(|(status, _)| status.to_string());
    let mut again = again.collect::<Vec<_>>();
    again.sort();
    let (last, others) = again.split_last().unwrap();
    for list in [
        format!("its status is {} or {last};", others.join(", ")),
        format!("^({})$", again.join("|")),
        format!("![{}].includes", again.join(", ")),
        format!("not in ({})", again.join(", ")),
    ] {
        assert_eq!(PAGE.matches(&list).count(), 1, "{list}");
    }
    // With `Retry-After`, as the client has it.
    for list in ["it is 409 or 413 with `Retry-After`", "^(409|413)$", "[409, 413].includes", "in (409, 413)"] {
        assert_eq!(PAGE.matches(list).count(), 1, "{list}");
    }
}
