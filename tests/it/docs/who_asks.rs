//! The page with the promises names every header that identifies a client, and every cookie that does not.

use std::collections::BTreeSet;

use tower_idempotency::server::{CREDENTIAL_HEADERS, EXEMPT_HEADERS, IGNORED_COOKIES};

const PAGE: &str = include_str!("../../../docs/promises.md");

/// The text between two others.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("{begin} is missing"));
    rest.split_once(end).unwrap_or_else(|| panic!("{end} is missing")).0
}

#[track_caller]
fn assert_names(text: &str, list: &[&str]) {
    let named: Vec<_> = text.split('`').skip(1).step_by(2).collect();
    let (set, list) = (BTreeSet::from_iter(&named), BTreeSet::from_iter(list));
    assert_eq!(named.len(), set.len(), "each once");
    let differing: Vec<_> = set.symmetric_difference(&list).collect();
    assert!(differing.is_empty(), "only in docs/promises.md, or only on the list: {differing:?}");
}

#[test]
fn the_page_with_the_promises_has_the_lists_of_headers_and_cookies() {
    let headers = between(PAGE, "\n## Headers that say who asks\n", "\n## ");
    assert_names(between(headers, "|---|---|\n", "\n\n"), CREDENTIAL_HEADERS);
    assert_names(between(headers, "([`EXEMPT_HEADERS`]): ", "\n\n"), EXEMPT_HEADERS);
    let cookies = between(PAGE, "\n## Cookies that do not count\n", "\n`credential_cookies");
    assert_names(between(cookies, "in any order:\n", ".\n"), IGNORED_COOKIES);
}
