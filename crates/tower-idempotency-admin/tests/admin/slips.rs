//! Filters with a slip: they would select more than was meant.

use serde_json::json;

use crate::desk::Desk;

// Seen before the mend: `{"scope": ""}` is a purge of all records.
#[tokio::test]
async fn a_purge_with_a_field_that_is_empty_deletes_nothing() {
    let desk = Desk::new();
    desk.charge("k", "17").await;
    for body in [
        json!({ "scope": "" }),
        json!({ "older_than": "" }),
        json!({ "older_than": " " }),
        json!({ "older_than": "0s", "scope": "" }),
        json!({ "older_than": "0s", "state": "" }),
        json!({ "older_than": "0s", "after": "" }),
        json!({ "scope": "", "answers_only": true }),
    ] {
        let answer = desk.json("/api/purge", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert_eq!(desk.listed("completed").await.len(), 1, "{body}");
    }
}

#[tokio::test]
async fn a_parameter_that_is_empty_or_there_twice_is_refused_and_not_the_first_one_taken() {
    let desk = Desk::new();
    desk.charge("k", "17").await;
    let id = desk.listed("completed").await[0]["id"].as_str().unwrap().to_owned();
    for path in [
        "/api/operations?scope=".to_owned(),
        "/api/operations?state=completed&label=%20".to_owned(),
        "/api/operations?status".to_owned(),
        "/api/operations?state=completed&state=interrupted".to_owned(),
        "/api/operations?limit=1&limit=2".to_owned(),
        "/api/operations?State=completed".to_owned(),
        "/api/disputed?after=".to_owned(),
        format!("/api/operations/{id}/outcome?disputed="),
    ] {
        let answer = desk.get(&path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
    for path in ["/api/operations?state=completed&limit=1".to_owned(), format!("/api/operations/{id}/outcome")] {
        assert_eq!(desk.get(&path).await.status, 200, "{path}");
    }
}
