use bytes::Bytes;
use serde_json::Value;
use tower_idempotency::Fence;
use tower_idempotency::operations::{Action, Answer};

use super::*;

fn id() -> String {
    "7e".repeat(32)
}

fn line(more: &str) -> String {
    format!(r#"{{"id":"{}","fence":"5"{more}}}"#, id())
}

#[test]
fn a_line_says_what_is_to_be_done_or_is_left() {
    for (more, expected) in [
        ("", None),
        (r#","label":"POST /charges","derived_keys":{"charge":"k"},"action":null"#, None),
        (r#","action":"release""#, Some(None)),
        (r#","state":"damaged","answer":null"#, None),
        (
            r#","action":"answer","answer":{"status":201,"headers":[["location","/1"]],"body":"paid"}"#,
            Some(Some("paid")),
        ),
        (r#","action":"answer","answer":{"status":201,"body":"cGFpZA==","encoding":"base64"}"#, Some(Some("paid"))),
        (r#","action":"answer","answer":{"body":"[17]"}"#, Some(Some("[17]"))),
    ] {
        let read = read(format!("\n{}\r\n\n", line(more)).as_bytes()).unwrap_or_else(|error| panic!("{more}: {error}"));
        let found = read.changes.first().map(|(line, change)| {
            assert_eq!((*line, change.id.to_string(), change.fence), (2, id(), Fence(5)));
            match &change.action {
                Action::Answer(Answer::Http(answer)) => Some(answer.body().clone()),
                Action::Answer(Answer::Bytes(bytes)) => Some(bytes.clone()),
                _ => None,
            }
        });
        assert_eq!(found, expected.map(|body| body.map(Bytes::from)), "{more}");
        assert_eq!(read.undecided == 1, expected.is_none());
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    for (wrong, said) in [
        (line(r#","acton":"release""#), "there is no field `acton`"),
        (line(r#","action":"canary""#), "`answer` or `release`"),
        (line(r#","action":"answer""#), "needs an `answer`"),
        (line(r#","answer":{"status":201}"#), "needs the action `answer`"),
        (line(r#","action":"release","answer":{"status":201}"#), "needs the action `answer`"),
        (
            line(r#","action":"answer","answer":{"statis":201}"#),
            "the form that `idem settle --help` shows, at column 121",
        ),
        (line(r#","action":"answer","answer":{"status":199}"#), "the status 199"),
        (line(r#","action":"answer","answer":{"status":200,"headers":[["a b","c"]]}"#), "a header of such a name"),
        (
            line(
                r#","action":"answer","answer":{"status":200,"headers":[["content-type","application/json"]],"body":"{"}"#,
            ),
            "the body is not",
        ),
        (line(r#","action":"answer","answer":{"body":"sent"}"#), "the outcome of a message consumer is JSON"),
        (line(r#","action":"answer","answer":{"status":200,"body":"!","encoding":"base64"}"#), "not Base64"),
        (
            line(r#","action":"answer","answer":{"headers":[["location","/1"]],"body":"1"}"#),
            "with headers needs a `status`",
        ),
        (line(r#","action":"release""#).replace("\"5\"", "null"), "a change needs the `fence`"),
        (r#"{"id":"7e7e7e7e","fence":"5"}"#.to_owned(), "`id` has 64 hex digits"),
        (line("").replace("\"5\"", "\"five\""), "`fence` is a number"),
        (line("").replace("\"5\"", "5"), "the form that `idem settle --help` shows, at column "),
        ("release".to_owned(), "expected value"),
        (
            line(r#","action":"answer","answer":{"status":"canary, expected"}"#),
            "the form that `idem settle --help` shows, at column ",
        ),
        (
            line(r#","action":"answer","answer":{"status":200,"encoding":"canary"}"#),
            "the form that `idem settle --help` shows, at column ",
        ),
    ] {
        let other = line("").replace("7e", "8f");
        let error = read(format!("{other}\n{wrong}").as_bytes()).err().unwrap_or_else(|| panic!("{wrong} is taken"));
        assert!(error.starts_with("line 2: ") && error.contains(said), "{wrong}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }
    let twice = read(format!("{}\n\n{}", line(""), line(r#","action":"release""#)).as_bytes()).err();
    assert_eq!(twice.as_deref(), Some("lines 1 and 3 are for one operation"));
}

/// A line may be one that the API has written, and a change is one that the API takes.
#[test]
fn a_line_has_the_fields_of_the_api() {
    let api: Value =
        serde_json::from_str(include_str!("../../../../tower-idempotency-admin/src/api/openapi.json")).unwrap();
    let fields = |of: &str| -> Vec<String> {
        let properties = api["components"]["schemas"][of]["properties"].as_object().unwrap();
        let mut names: Vec<_> = properties.keys().cloned().collect();
        names.sort();
        names
    };
    let mut known: Vec<_> = KNOWN.iter().map(|name| (*name).to_owned()).chain(["id".into(), "fence".into()]).collect();
    // Only the program writes it.
    known.retain(|name| name != "seconds_in_state");
    known.sort();
    assert_eq!(known, fields("Operation"));
    assert_eq!(fields("Change"), ["action", "answer", "fence", "id"]);
    assert_eq!(fields("GivenAnswer"), ["body", "encoding", "headers", "status"]);
}
