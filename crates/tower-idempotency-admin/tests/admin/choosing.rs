//! Filters choose: each with each other one, for what is listed, forgotten and settled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use form_urlencoded::Serializer;
use http::StatusCode;
use serde_json::{Value, json};
use testkit::lab::asked::leave_interrupted;
use testkit::lab::steps::Steps as _;
use testkit::lab::time::{HOUR, clock};
use testkit::lab::{done, hold};
use tower_idempotency::{MemoryStore, Scope, Secret, Unsure};
use tower_idempotency_admin::{Access, AdminPage};

use crate::desk::{Desk, PATH, authorize, layer};
use crate::document::forms;

/// Each end of an operation, as its charge asks for it, and the state to which it leads.
const ENDS: [(&str, &str); 5] = [
    ("200", "completed"),
    ("201", "completed"),
    ("secret", "consumed"),
    ("unsure", "interrupted"),
    ("panic", "interrupted"),
];
const AGES: [&str; 2] = ["old", "new"];
const OWNERS: [&str; 2] = ["acme", "other"];
/// The time between the old ones and the new ones: an hour after noon.
const BETWEEN: &str = "2027-01-15T09:00:00Z";

async fn handler(body: String) -> Response {
    match body.as_str() {
        "panic" => panic!("on purpose"),
        "unsure" => (Unsure, StatusCode::GATEWAY_TIMEOUT).into_response(),
        "secret" => (Secret, StatusCode::CREATED).into_response(),
        status => status.parse::<StatusCode>().expect("a status").into_response(),
    }
}

/// A desk with an operation of each age, owner and end, whose label has all three.
async fn desk(ends: &[(&str, &str)]) -> Desk {
    let clock = clock();
    let layer = layer(MemoryStore::builder().clock(clock.clone()).build());
    let page = AdminPage::new(layer.operations(), |parts| authorize(parts, Access::ALL));
    let charges = Router::new().route("/charges", post(handler)).layer(layer.clone());
    let desk = Desk { app: charges.nest(PATH, page.router()), layer };
    for age in AGES {
        for owner in OWNERS {
            for (end, _) in ends {
                let label = format!("{age} {owner} {end}");
                let headers = [("x-account", owner), ("x-label", &label)];
                let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
                desk.charge_with(&format!("{age}-{end}"), end, headers.into_iter().collect()).await;
            }
        }
        clock.advance(Duration::from_secs(2 * 3_600));
    }
    desk
}

fn digest(owner: &str) -> String {
    Scope::new(owner).unwrap().digest().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The label of each operation that is left, with its id and its state.
async fn all(desk: &Desk) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |one: Value| (text(&one["label"]), (text(&one["id"]), text(&one["state"])));
    desk.listed("any").await.into_iter().map(one).collect()
}

/// Whether an operation of this age, owner and end is selected.
type Selects = fn(age: &str, owner: &str, end: &str) -> bool;
/// The field of a filter, its value, and what it selects.
type Condition = (&'static str, String, Selects);

/// Each condition, as the page and the list of the API have it.
fn conditions() -> Vec<Condition> {
    let condition = |name, value: &str, selects: Selects| (name, value.to_owned(), selects);
    vec![
        condition("state", "completed", |_, _, end| matches!(end, "200" | "201")),
        condition("state", "consumed", |_, _, end| end == "secret"),
        condition("state", "interrupted", |_, _, end| matches!(end, "unsure" | "panic")),
        condition("cause", "answered", |_, _, end| end == "unsure"),
        condition("cause", "panicked", |_, _, end| end == "panic"),
        condition("label", "old a", |age, owner, _| age == "old" && owner == "acme"),
        condition("since", BETWEEN, |age, _, _| age == "new"),
        condition("before", BETWEEN, |age, _, _| age == "old"),
        // The new ones have been there for two hours.
        condition("older_than", "3h", |age, _, _| age == "old"),
        condition("status", "201", |_, _, end| matches!(end, "201" | "secret")),
        condition("status", "504", |_, _, end| end == "unsure"),
        condition("scope", &digest("acme"), |_, owner, _| owner == "acme"),
    ]
}

fn selects(condition: &Condition, label: &str) -> bool {
    let mut words = label.split(' ');
    let [age, owner, end] = [(); 3].map(|()| words.next().unwrap());
    condition.2(age, owner, end)
}

// Seeded faults: a field is left out of what is read, or of the filter.
#[tokio::test]
async fn of_two_filters_both_choose_what_is_listed_and_what_is_settled() {
    let desk = desk(&ENDS).await;
    let all = all(&desk).await;
    assert_eq!(all.len(), AGES.len() * OWNERS.len() * ENDS.len());
    let (conditions, mut has_settled) = (conditions(), BTreeSet::new());
    for one in &conditions {
        for other in conditions.iter().filter(|other| other.0 != one.0) {
            let chosen = all.iter().filter(|(label, _)| selects(one, label) && selects(other, label));
            let chosen: BTreeMap<_, _> = chosen.collect();
            let fields = [one, other].map(|(name, value, _)| (*name, value.as_str()));
            let filter = format!("?{}", Serializer::new(String::new()).extend_pairs(fields).finish());
            let listed = desk.get(&format!("/api/operations{filter}&limit=1000")).await.json();
            let listed = listed["operations"].as_array().unwrap().iter().map(|one| one["label"].as_str().unwrap());
            assert_eq!(
                listed.collect::<BTreeSet<_>>(),
                chosen.keys().map(|label| label.as_str()).collect(),
                "{filter}"
            );
            // All that match, of those that are for the action.
            let fit = chosen.values().filter(|(_, state)| state == "interrupted").map(|(id, _)| id.as_str());
            let fit: BTreeSet<_> = fit.collect();
            // Without a state, the page has what is interrupted.
            let shown = if one.0 == "state" || other.0 == "state" { chosen.len() } else { fit.len() };
            let page = desk.get(&filter).await;
            assert_eq!(page.text().matches("data-label=\"Attempt\"").count(), shown, "{filter}");
            let asked = [("do", "review"), ("all", "release"), ("matching", filter.as_str())];
            let review = desk.post("?settle", &Serializer::new(String::new()).extend_pairs(asked).finish()).await;
            assert_eq!(review.status, if fit.is_empty() { 400 } else { 200 }, "{filter}: {}", review.text());
            let fields = forms(review.text()).into_iter().flat_map(|form| form.fields);
            let meant: Vec<_> = fields.filter(|(name, _)| name == "row").map(|(_, row)| row).collect();
            let meant: BTreeSet<_> = meant.iter().map(|row| row.split_once(':').unwrap().0).collect();
            assert_eq!(meant, fit, "{filter}");
            has_settled.insert(fit.len());
        }
    }
    assert!(has_settled.len() > 2, "filters choose some: {has_settled:?}");
}

/// What is left of the operations after a purge that chooses these.
fn after_purge(label: &str, state: &str, is_chosen: bool, answers_only: bool) -> Option<String> {
    let is_forgotten = is_chosen && state == "completed" || is_chosen && state == "consumed" && !answers_only;
    match (is_forgotten, answers_only) {
        (true, true) => Some(format!("{label}: consumed")),
        (true, false) => None,
        (false, _) => Some(format!("{label}: {state}")),
    }
}

// Each choice of a state, a status, and a scope, an age or both. Seeded faults: `status`, or another condition, is left
// out of what a purge reads, and the records of every status are forgotten.
#[tokio::test]
async fn each_condition_of_a_purge_chooses_what_it_forgets() {
    let conditions = conditions();
    let of = |wanted: &'static str| conditions.iter().filter(move |(name, ..)| *name == wanted).map(Some);
    let none = || [None].into_iter();
    // It would be a panic for each of them.
    let ends = &ENDS[..4];
    for state in none().chain(of("state")) {
        for status in none().chain(of("status")) {
            for (scope, age) in [(true, false), (false, true), (true, true)] {
                let scope = of("scope").flatten().find(|_| scope);
                let age = of("older_than").flatten().find(|_| age);
                for answers_only in [false, true] {
                    let desk = desk(ends).await;
                    let chosen: Vec<_> = [state, status, scope, age].into_iter().flatten().collect();
                    let mut body = json!({ "limit": 3, "answers_only": answers_only });
                    for (name, value, _) in &chosen {
                        body[name] =
                            if *name == "status" { value.parse::<u16>().unwrap().into() } else { json!(value) };
                    }
                    let left = all(&desk).await;
                    assert_eq!(left.len(), AGES.len() * OWNERS.len() * ends.len());
                    let expected = left.iter().filter_map(|(label, (_, state))| {
                        let is_chosen = chosen.iter().all(|condition| selects(condition, label));
                        after_purge(label, state, is_chosen, answers_only)
                    });
                    let expected: BTreeSet<_> = expected.collect();
                    let before: BTreeSet<_> =
                        left.iter().map(|(label, (_, state))| format!("{label}: {state}")).collect();
                    let forgotten = purge(&desk, body.clone()).await;
                    assert_eq!(forgotten, before.difference(&expected).count() as u64, "{body}");
                    let left: BTreeSet<_> =
                        all(&desk).await.iter().map(|(label, (_, state))| format!("{label}: {state}")).collect();
                    assert_eq!(left, expected, "{body}");
                }
            }
        }
    }
}

/// Forgets page by page. Returns how many are forgotten.
async fn purge(desk: &Desk, mut body: Value) -> u64 {
    let mut forgotten = 0;
    for _ in 0..100 {
        let purged = desk.json("/api/purge", body.clone()).await;
        assert_eq!(purged.status, 200, "{body}: {}", purged.text());
        let purged = purged.json();
        assert_eq!(purged["left"], json!([]), "{body}");
        forgotten += purged["forgotten"].as_u64().unwrap();
        match &purged["next"] {
            Value::Null => return forgotten,
            next => body["after"] = next.clone(),
        }
    }
    panic!("the pages do not end: {body}");
}

// Seeded fault: such a condition is taken, and does not choose.
#[tokio::test]
async fn a_condition_that_a_purge_does_not_have_forgets_nothing() {
    let desk = desk(&ENDS[..2]).await;
    let before = all(&desk).await;
    assert_eq!(before.len(), AGES.len() * OWNERS.len() * 2);
    for (name, value, _) in conditions() {
        if !["state", "status", "scope", "older_than"].contains(&name) {
            let refused = desk.json("/api/purge", json!({ "older_than": "0s", name: value })).await;
            assert_eq!(refused.status, 400, "{name}: {}", refused.text());
        }
    }
    assert_eq!(all(&desk).await, before);
}

// Seeded fault: each call to the store has the whole limit, and not what is left of it.
#[tokio::test]
async fn all_that_match_a_filter_with_others_among_them_are_settled_1_000_at_a_time() {
    let store = MemoryStore::new();
    for number in 0..3_000 {
        let key = number.to_string();
        if number % 2 == 0 {
            leave_interrupted(&store, &key).await;
        } else {
            let hold = hold(&store, &key).await;
            store.complete(done(hold, "\x01", HOUR)).await.unwrap();
        }
    }
    let desk = Desk::over(layer(store), Access::ALL);
    let mut settled = 0;
    for has_more in [true, false] {
        let review = desk.post("?settle", "do=review&all=release&matching=%3Fstate%3Dany").await;
        assert_eq!(review.status, 200, "{}", review.text());
        assert_eq!(review.text().contains("There may be more that match"), has_more, "after {settled}");
        let forms = forms(review.text());
        let form = forms.iter().find(|form| form.has("do", "apply")).unwrap();
        let meant = form.fields.iter().filter(|(name, _)| name == "row").count();
        assert!(meant <= 1_000, "{meant}");
        settled += meant;
        assert_eq!(desk.submit(form, &[]).await.status, 200);
    }
    assert_eq!((settled, desk.listed("interrupted").await.len()), (1_500, 0));
}
