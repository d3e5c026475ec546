//! An operator settles, without JavaScript: first what it leads to, in words, and then the button.

use serde_json::json;
use testkit::Answer;
use testkit::lab::asked::{Asked, found, leave_interrupted};
use testkit::lab::time::HOUR;
use testkit::log::Log;
use tower_idempotency::MemoryStore;
use tower_idempotency::Once;
use tower_idempotency::engine::{EffectError, Reconciled};
use tower_idempotency::operations::Operations;
use tower_idempotency::{Fingerprint, Key, RecordId, Scope};
use tower_idempotency_admin::{Access, AdminPage};

use crate::desk::{Desk, authorize, layer};
use crate::document::{Form, boxes, form, forms};

/// Presses the button of a form for `action`, reads what it leads to, and confirms.
async fn confirmed(desk: &Desk, ask: &Form, more: &[(&str, &str)], consequence: &str) -> Answer {
    let review = desk.submit(ask, more).await;
    assert_eq!(review.status, 200, "{}", review.text());
    let text = review.text();
    let confirm = form(text, "do", "apply");
    let (words, button) = (text.find(consequence).expect(consequence), text.find("Yes: ").expect("a button"));
    assert!(words < button, "the consequence comes after the button: {text}");
    let result = desk.submit(&confirm, &[]).await;
    assert_eq!(result.status, 200, "{}", result.text());
    result
}

/// The form of an operation's page that leads to an action.
async fn way(desk: &Desk, id: &str, action: &str) -> Form {
    form(desk.get(&format!("?id={id}")).await.text(), "action", action)
}

#[tokio::test]
async fn an_operation_is_given_an_answer_and_its_retry_gets_it() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("k").await;
    let body = r#"{"id":"ch_1"}"#;
    let ask = way(&desk, &id, "answer").await.with("status", "201").with("body", body);
    let result = confirmed(&desk, &ask, &[], "each retry with this key gets this answer").await;
    assert!(result.text().contains("Done: retries get this answer."), "{}", result.text());
    let replay = desk.charge("k", "unknown").await;
    assert_eq!((replay.status.as_u16(), replay.text(), replay.is_replay()), (201, body, true));
    assert_eq!(replay.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_key_is_freed_and_its_retry_runs() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("k").await;
    let count = async || desk.get("/api/stats").await.json()["interrupted"]["count"].clone();
    assert_eq!(count().await, 1);
    let result = confirmed(&desk, &way(&desk, &id, "release").await, &[], "the next retry runs the handler").await;
    assert!(result.text().contains("Done: the key is free."), "{}", result.text());
    assert_eq!(count().await, 0);
    assert_eq!(desk.charge("k", "unknown").await.status, 504, "it runs again");
}

#[tokio::test]
async fn a_done_operation_is_forgotten_and_its_retry_runs() {
    let desk = Desk::new();
    desk.charge("k", "17").await;
    let (id, _) = desk.found("k").await;
    let result = confirmed(&desk, &way(&desk, &id, "forget").await, &[], "which is a second effect").await;
    assert!(result.text().contains("Done: the key is free."), "{}", result.text());
    let again = desk.charge("k", "17").await;
    assert!(again.status == 200 && !again.is_replay());
}

#[tokio::test]
async fn the_application_is_asked_if_it_can_be_asked() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("k").await;
    assert!(!desk.get(&format!("?id={id}")).await.text().contains("Ask the application"));
    let script = [Reconciled::StillUnknown, found("charged")];
    let desk = Desk::over(desk.layer.reconcile_with(Asked::default().says(script)), Access::ALL);
    for said in ["the application does not know either", "the application knew it"] {
        let result = confirmed(&desk, &way(&desk, &id, "reconcile").await, &[], "The application looks up").await;
        assert!(result.text().contains(said), "{}", result.text());
    }
    assert_eq!(desk.charge("k", "unknown").await.text(), "charged");
}

#[tokio::test]
async fn several_are_settled_at_once_with_a_result_for_each() {
    let desk = Desk::new();
    for key in ["a", "b", "c"] {
        desk.interrupted(key).await;
    }
    let list = desk.get("").await;
    let (ask, rows) = (form(list.text(), "do", "review"), boxes(list.text()));
    assert_eq!(rows.len(), 3);
    let buttons: Vec<_> = ask.buttons.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(buttons, ["answer", "release", "answer", "release"], "for those that are selected, and for all");
    // One of them is settled by another operator meanwhile.
    desk.change(&desk.found("b").await, "release").await;
    let more = rows.iter().map(|row| ("row", row.as_str())).chain([("action", "release")]).collect::<Vec<_>>();
    let result = confirmed(&desk, &ask, &more, "the next retry runs the handler").await;
    assert_eq!(result.text().matches(">Done: the key is free.<").count(), 2, "{}", result.text());
    assert_eq!(result.text().matches(">Nothing was changed").count(), 1, "{}", result.text());
    assert!(desk.listed("interrupted").await.is_empty());
}

/// A desk with 130 interrupted charges and 3 interrupted refunds.
async fn many() -> Desk {
    let desk = Desk::new();
    for number in 0..133 {
        let label = if number < 130 { "POST /charges" } else { "POST /refunds" };
        let headers = [("x-label".parse().unwrap(), label.parse().unwrap())];
        desk.charge_with(&number.to_string(), "unknown", headers.into_iter().collect()).await;
    }
    desk
}

#[tokio::test]
async fn all_that_match_a_filter_are_counted_first_and_then_settled() {
    let desk = many().await;
    let list = desk.get("?state=interrupted&label=POST+%2Fcharges").await;
    let ask = form(list.text(), "do", "review");
    let review = desk.submit(&ask, &[("all", "release")]).await;
    assert!(review.text().contains("130 operations are meant; these are the first 100"), "{}", review.text());
    assert!(review.text().contains("the next retry runs the handler"), "{}", review.text());
    // One of them is settled by another operator meanwhile, and one comes that was not counted.
    desk.change(&desk.found("17").await, "release").await;
    let headers = [("x-label".parse().unwrap(), "POST /charges".parse().unwrap())];
    desk.charge_with("late", "unknown", headers.into_iter().collect()).await;
    let result = desk.submit(&form(review.text(), "do", "apply"), &[]).await;
    assert!(result.text().contains("<strong>129</strong> – Done: the key is free."), "{}", result.text());
    assert!(result.text().contains("<strong>1</strong> – Nothing was changed"), "{}", result.text());
    assert_eq!(result.text().matches("<tr>").count(), 131, "a result for each, and the head");
    assert!(result.text().contains("label=POST+%2Fcharges"), "it leads back to the filter");
    let left: Vec<_> = desk.listed("interrupted").await.iter().map(|left| left["label"].clone()).collect();
    assert_eq!(left, ["POST /refunds", "POST /refunds", "POST /refunds", "POST /charges"]);
}

#[tokio::test]
async fn at_most_1_000_are_settled_at_once_and_it_is_said_that_there_are_more() {
    let store = MemoryStore::new();
    for number in 0..1_003 {
        leave_interrupted(&store, &number.to_string()).await;
    }
    let desk = Desk::over(layer(store), Access::ALL);
    let list = desk.get("").await;
    let ask = form(list.text(), "do", "review");
    for (meant, has_more) in [(1_000, true), (3, false)] {
        let review = desk.submit(&ask, &[("all", "release")]).await;
        let text = review.text();
        assert!(text.contains(&format!("{meant} operations are meant")), "{meant}");
        assert_eq!(text.contains("There may be more that match"), has_more, "{meant}");
        let result = desk.submit(&form(text, "do", "apply"), &[]).await;
        assert!(result.text().contains(&format!("<strong>{meant}</strong> – Done")), "{meant}");
    }
    assert!(desk.listed("interrupted").await.is_empty());
}

#[tokio::test]
async fn all_that_match_a_filter_are_given_one_answer() {
    let desk = many().await;
    let list = desk.get("?state=interrupted&label=POST+%2Frefunds").await;
    let enter =
        form(desk.submit(&form(list.text(), "do", "review"), &[("all", "answer")]).await.text(), "action", "answer");
    confirmed(&desk, &enter.with("body", "{}"), &[], "each retry with this key gets this answer").await;
    assert_eq!((desk.listed("interrupted").await.len(), desk.listed("completed").await.len()), (130, 3));
    // Those that are done are not for this.
    let list = desk.get("?state=any").await;
    let review = desk.submit(&form(list.text(), "do", "review"), &[("all", "release")]).await;
    assert!(review.text().contains("130 operations are meant"), "{}", review.text());
}

#[tokio::test]
async fn a_long_list_says_that_the_reconciler_decides_and_has_the_button() {
    let desk = Desk::new();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
        desk.interrupted(key).await;
    }
    assert!(!desk.get("").await.text().contains("id=\"many\""));
    desk.interrupted("j").await;
    let without = desk.get("").await;
    assert!(without.text().contains("reconcile_with") && without.text().contains("operators.md#settling-many"));
    let script: Vec<_> = (0..10).map(|_| found("charged")).collect();
    let desk = Desk::over(desk.layer.reconcile_with(Asked::default().says(script)), Access::ALL);
    let list = desk.get("").await;
    assert!(list.text().contains("let your reconciler decide"), "{}", list.text());
    // Which they are comes first.
    let counted = "Listed here: 10 without a label (answered).";
    let place = |text: &str| list.text().find(text).unwrap_or_else(|| panic!("{text}: {}", list.text()));
    assert!(place(counted) < place("<caption>10 operations"));
    let ask = form(list.text(), "do", "review");
    let review = desk.submit(&ask, &[("all", "reconcile")]).await;
    let result = desk.submit(&form(review.text(), "do", "apply"), &[]).await;
    assert!(result.text().contains("<strong>10</strong> – Done: the application knew it"), "{}", result.text());
}

#[tokio::test]
async fn several_are_given_one_answer() {
    let desk = Desk::new();
    for key in ["a", "b"] {
        desk.interrupted(key).await;
    }
    let list = desk.get("").await;
    let (ask, rows) = (form(list.text(), "do", "review"), boxes(list.text()));
    let more = rows.iter().map(|row| ("row", row.as_str())).chain([("action", "answer")]).collect::<Vec<_>>();
    let enter = form(desk.submit(&ask, &more).await.text(), "action", "answer");
    let enter = enter.with("status", "502").with("content_type", "text/plain").with("body", "it failed\r\nfor good");
    confirmed(&desk, &enter, &[], "each retry with this key gets this answer").await;
    for key in ["a", "b"] {
        let replay = desk.charge(key, "unknown").await;
        assert_eq!((replay.status.as_u16(), replay.text()), (502, "it failed\nfor good"));
    }
}

#[tokio::test]
async fn an_answer_in_base64_may_have_blanks_around_it() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("k").await;
    let ask = way(&desk, &id, "answer").await.with("content_type", "").with("encoding", "base64");
    confirmed(&desk, &ask.with("body", " /wA=\r\n"), &[], "").await;
    let replay = desk.charge("k", "unknown").await;
    assert_eq!((&*replay.body, replay.header("content-type")), (&b"\xff\0"[..], None));
}

#[tokio::test]
async fn where_it_is_not_known_whose_an_operation_is_an_answer_without_a_status_is_json_of_a_consumer() {
    let store = MemoryStore::new();
    let page = AdminPage::new(Operations::over(store.clone(), HOUR), |parts| authorize(parts, Access::ALL));
    let desk = Desk::of(layer(store), page);
    let (id, _) = desk.interrupted("k").await;
    let ask = way(&desk, &id, "answer").await;
    assert!(ask.has("status", "200") && ask.has("content_type", "application/json"), "{ask:?}");
    let refused = desk.submit(&ask.clone().with("status", "").with("body", "sent"), &[]).await;
    assert!(refused.text().contains("The outcome of a message consumer is JSON"), "{}", refused.text());
    assert!(refused.text().contains("Leave it empty for the outcome of a message consumer"), "{}", refused.text());
    confirmed(&desk, &ask.with("status", "").with("body", "[17]"), &[], "each retry").await;
    let outcome = desk.get(&format!("/api/operations/{id}/outcome")).await.json();
    assert_eq!((&outcome["status"], &outcome["body"]), (&json!(null), &json!("[17]")));
}

#[tokio::test]
async fn what_is_wrong_with_an_answer_is_said_and_what_was_entered_stays() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("k").await;
    let ask = way(&desk, &id, "answer").await;
    let cases = [
        ("200", "application/json", "{id}"),
        ("99", "text/plain", "\nx"),
        ("ok", "text/plain", "x"),
        ("200", "application/problem+json ; charset=utf-8", "{id}"),
        ("200", "a\nb", "x"),
        // Only where it may be a consumer's operation does an answer need no status.
        ("", "text/plain", "17"),
    ];
    for (status, content_type, body) in cases {
        let entered = ask.clone().with("status", status).with("content_type", content_type).with("body", body);
        let page = desk.submit(&entered, &[]).await;
        assert!(page.text().contains("role=\"alert\""), "{}", page.text());
        let again = form(page.text(), "action", "answer");
        assert!(again.has("do", "review") && again.has("status", status) && again.has("body", body), "{again:?}");
        // It is refused at the last step, too.
        assert_eq!(desk.submit(&entered.with("do", "apply"), &[]).await.status, 400);
    }
    let empty = desk.submit(&ask, &[]).await;
    assert!(empty.text().contains("The content type is JSON, and the body is empty."), "{}", empty.text());
    assert_eq!(desk.listed("interrupted").await.len(), 1);
}

#[tokio::test]
async fn an_operation_that_has_changed_since_is_not_changed_and_that_is_said_before() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("k").await;
    let ask = way(&desk, &id, "release").await;
    confirmed(&desk, &ask, &[], "").await;
    desk.charge("k", "unknown").await;
    let review = desk.submit(&ask, &[]).await;
    assert!(review.text().contains("It has changed since you looked"), "{}", review.text());
    let result = desk.submit(&form(review.text(), "do", "apply"), &[]).await;
    assert!(result.text().contains("Nothing was changed"), "{}", result.text());
    assert_eq!(desk.listed("interrupted").await.len(), 1);
    // Another operator settles it.
    let ask = way(&desk, &id, "release").await;
    let (id, fence) = desk.found("k").await;
    let change = json!({ "id": id, "fence": fence, "action": "answer", "answer": { "status": 200 } });
    assert_eq!(desk.json("/api/changes", json!({ "changes": [change] })).await.status, 200);
    let review = desk.submit(&ask, &[]).await;
    assert!(review.text().contains(">It is completed now: this will change nothing.<"), "{}", review.text());
}

#[tokio::test]
async fn a_form_that_is_not_the_pages_changes_nothing() {
    let desk = Desk::new();
    let (id, fence) = desk.interrupted("k").await;
    for body in [
        String::new(),
        "do=apply".to_owned(),
        "do=apply&action=release".to_owned(),
        format!("do=apply&action=burn&row={id}:{fence}"),
        format!("do=apply&action=release&row={id}"),
        format!("do=apply&action=release&row={id}:{fence}&row=x"),
        format!("do=apply&action=answer&row={id}:{fence}"),
        format!("do=apply&action=release{}", format!("&row={id}:{fence}").repeat(1_001)),
        format!("do=review&all=release&matching={}", "?cause=moon"),
        format!("do=review&all=forget&matching={}", "?state=interrupted"),
        // A filter is no confirmation.
        format!("do=apply&all=release&action=release&matching={}", "?state=interrupted"),
        format!("do=apply&action=release&row={id}:{fence}&x={}", "x".repeat(5 << 20)),
    ] {
        let answer = desk.post("?settle", &body).await;
        let status = if body.len() > 1 << 20 { 413 } else { 400 };
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    }
    let none = desk.post("?settle", "do=review&action=release").await;
    assert!(none.text().contains("No operation is selected."), "{}", none.text());
    let review = desk.post("?settle", &format!("do=review&action=release&row={id}:{fence}&status=200&body=x")).await;
    assert!(review.status == 200 && !review.text().contains("The answer"), "{}", review.text());
    let change = json!({ "id": id, "fence": "0", "action": "release" });
    for (count, status) in [(0, 400), (1, 200), (1_000, 200), (1_001, 400)] {
        let changes = json!({ "changes": vec![change.clone(); count] });
        assert_eq!(desk.json("/api/changes", changes).await.status.as_u16(), status, "{count} changes");
        let purge = desk.json("/api/purge", json!({ "older_than": "0s", "limit": count })).await;
        assert_eq!(purge.status.as_u16(), status, "a purge of {count}");
        for list in ["operations", "disputed"] {
            let listed = desk.get(&format!("/api/{list}?limit={count}")).await;
            assert_eq!(listed.status.as_u16(), status, "{list}: {count}");
        }
    }
    // An answer is for the action that gives one, and that has to have one.
    let answer = json!({ "status": 200 });
    for (action, answer) in [("release", &answer), ("reconcile", &answer), ("answer", &json!(null))] {
        let change = json!({ "id": id, "fence": fence, "action": action, "answer": answer });
        assert_eq!(desk.json("/api/changes", json!({ "changes": [change] })).await.status, 400, "{action}");
    }
    assert_eq!(desk.listed("interrupted").await.len(), 1);
}

#[tokio::test]
async fn an_outcome_of_a_consumer_is_json_in_and_out() {
    let store = MemoryStore::new();
    let once = Once::new(store.clone());
    let id = RecordId::new(Some(&Scope::new("mailer").unwrap()), &Key::new("m").unwrap());
    let failed =
        once.run(id, Fingerprint::of(b"m"), async |_| Err::<String, _>(EffectError::MaybeStarted("lost"))).await;
    failed.unwrap_err();
    let page = AdminPage::new(once.operations(), |parts| authorize(parts, Access::ALL));
    let desk = Desk::of(layer(store), page);
    let ask = way(&desk, &id.to_string(), "answer").await;
    assert!(!ask.fields.iter().any(|(name, _)| name == "status"), "{ask:?}");
    let refused = desk.submit(&ask.clone().with("body", "it was sent"), &[]).await;
    assert!(
        refused.text().contains("The outcome of a message consumer is JSON, and this is not"),
        "{}",
        refused.text()
    );
    // JSON of another type.
    let review = desk.submit(&ask.clone().with("body", "17"), &[]).await;
    let refused = desk.submit(&form(review.text(), "do", "apply"), &[]).await;
    assert!(refused.text().contains("give it as JSON of the type"), "{}", refused.text());
    confirmed(&desk, &ask.with("body", "\"it was sent\""), &[], "each retry").await;
    let outcome = desk.get(&format!("/api/operations/{id}/outcome")).await.json();
    assert_eq!(outcome, json!({ "status": null, "headers": [], "body": "\"it was sent\"", "encoding": "utf-8" }));
    let effect = async |_| Ok::<_, EffectError<&str>>(String::new());
    assert_eq!(once.run(id, Fingerprint::of(b"m"), effect).await.unwrap().value, "it was sent");
}

#[tokio::test]
async fn each_change_is_in_the_audit_log_with_the_name_that_the_hook_gave() {
    let log = Log::begin(tracing::Level::INFO);
    let desk = Desk::new();
    let (id, fence) = desk.interrupted("k").await;
    confirmed(&desk, &way(&desk, &id, "release").await, &[], "").await;
    let lines = log.lines();
    let audit: Vec<_> = lines.iter().filter(|line| line.contains("tower_idempotency::audit")).collect();
    let [line] = audit.as_slice() else { panic!("{lines:?}") };
    for part in [
        r#"actor="alice""#,
        r#"action="release""#,
        &format!("record_id={id}"),
        &format!("fence={fence}"),
        r#"result="done""#,
    ] {
        assert!(line.contains(part), "{line}");
    }
}

#[tokio::test]
async fn an_operation_that_runs_or_is_damaged_has_no_button() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("k").await;
    assert!(!forms(desk.get(&format!("?id={id}")).await.text()).is_empty());
    let free = RecordId::from_bytes([7; 32]);
    assert_eq!(desk.get(&format!("?id={free}")).await.status, 404);
}
