//! Outcomes that came too late, records that can't be read, and a store that does not answer.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use testkit::lab::asked::leave_interrupted;
use testkit::lab::disk::{Disk, Table as _};
use testkit::lab::{Lab, hold, on_disk, with};
use testkit::on_both;
use tokio::time::Instant;
use tower_idempotency::store::Store as _;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{Fence, IdempotencyLayer, RecordId};
use tower_idempotency_admin::Access;
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_shared::{Kind, Row, SharedStore, SharedStoreBuilder, Token};

use crate::desk::{Desk, layer};
use crate::document::{boxes, forms};

/// An interrupted operation, a disputed outcome, and a row that can't be read.
async fn desk() -> (Desk<SharedStore<MemoryBackend>>, SharedStore<MemoryBackend>) {
    let backend = MemoryBackend::new();
    let store = SharedStoreBuilder::default().open(backend.clone()).await.unwrap();
    leave_interrupted(&store, "k").await;
    let row = backend.database().rows("").into_iter().find(|row| row.kind == Kind::Interrupted).expect("a row");
    leave_disputed(&backend, layer(store.clone())).await;
    let damaged = RecordId::from_bytes([0xda; 32]);
    backend.database().insert_raw("", Row { id: damaged, kind: Kind::Completed, state: row.state.slice(..3), ..row });
    (Desk::over(layer(store.clone()), Access::ALL), store)
}

/// Leaves a disputed outcome: while the handler runs, the key is freed, as an operator frees it elsewhere.
async fn leave_disputed(backend: &MemoryBackend, layer: IdempotencyLayer<SharedStore<MemoryBackend>>) {
    leave_disputed_by(backend, layer, |row| Row { kind: Kind::Released, ..row }).await;
}

/// The same, where this is what becomes of the row of the run.
async fn leave_disputed_by(
    backend: &MemoryBackend,
    layer: IdempotencyLayer<SharedStore<MemoryBackend>>,
    settled: impl Fn(Row) -> Row + Clone + Send + Sync + 'static,
) {
    let database = backend.database().clone();
    let lab = Lab::new(layer, move |_| {
        let row = database.rows("").into_iter().find(|row| row.kind == Kind::Running).expect("it runs");
        let (token, fence) = (Token([9; 16]), Fence(row.fence.0 + 1));
        database.insert_raw("", Row { session: None, token, fence, ..settled(row) });
        async { (StatusCode::ACCEPTED, "charged <twice>") }
    });
    assert_eq!(lab.send(with("x-label", "charge 17")).await.problem(), "outcome-unknown");
}

// Seeded faults: the link is there for all who may read; the API gives the outcome of the operation.
#[tokio::test]
async fn what_is_disputed_is_counted_and_listed_and_its_answer_is_shown_on_request() {
    let (desk, store) = desk().await;
    let listed = desk.get("/api/disputed").await.json();
    let [outcome] = listed["operations"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!(
        (&outcome["state"], &outcome["status"], &outcome["began"]),
        (&json!("completed"), &json!(202), &json!(null))
    );
    let (id, fence) = (outcome["id"].as_str().unwrap(), outcome["fence"].as_str().unwrap());
    assert_eq!(desk.get("/api/stats").await.json()["disputed"]["count"], 1);
    let answer = desk.get(&format!("/api/operations/{id}/outcome?disputed={fence}")).await.json();
    assert_eq!((&answer["status"], &answer["body"]), (&json!(202), &json!("charged <twice>")));
    for (uri, status) in [("", 404), ("?disputed=1", 404), ("?disputed=x", 400), ("?fence=1", 400)] {
        assert_eq!(desk.get(&format!("/api/operations/{id}/outcome{uri}")).await.status, status, "{uri}");
    }

    let (page, link) = (desk.get("").await, format!("?id={id}&amp;disputed={fence}"));
    let bytes = outcome["bytes"].as_str().unwrap();
    for part in ["1 outcome<", "charge 17", &format!("</span>, {bytes} bytes"), &link] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    assert!(!page.text().contains("twice"));
    let shown = desk.get(&link.replace("&amp;", "&")).await;
    for part in ["There is no record of the operation any more", "charged &lt;twice&gt;", "The disputed answer"] {
        assert!(shown.text().contains(part), "{part}: {}", shown.text());
    }
    assert_eq!(desk.get(&format!("?id={id}&disputed=1")).await.status, 404);

    let reader = Desk::over(layer(store), Access::READ);
    assert!(reader.get("").await.text().contains(bytes) && !reader.get("").await.text().contains("disputed="));
    for path in [format!("?id={id}&disputed={fence}"), format!("/api/operations/{id}/outcome?disputed={fence}")] {
        assert_eq!(reader.get(&path).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn a_disputed_answer_is_shown_after_the_recorded_one() {
    let backend = MemoryBackend::new();
    let open = async || SharedStoreBuilder::default().open(backend.another_process()).await.unwrap();
    // The answer that an operator gives elsewhere while the run goes on.
    let other = Lab::new(layer(open().await), async |_| "the ledger has it");
    assert_eq!(other.send(with("x-label", "charge 17")).await.status, 200);
    let given = backend.database().rows("").into_iter().find(|row| row.kind == Kind::Completed).expect("a row");
    backend.database().delete("", given.id);
    let (store, id) = (open().await, given.id);
    leave_disputed_by(&backend, layer(store.clone()), move |_| given.clone()).await;
    let desk = Desk::over(layer(store), Access::ALL);
    let fence = desk.get("/api/disputed").await.json()["operations"][0]["fence"].as_str().unwrap().to_owned();
    let page = desk.get(&format!("?id={id}&disputed={fence}")).await;
    let places = ["The recorded answer", "the ledger has it", "The disputed answer", "charged &lt;twice&gt;"];
    let places = places.map(|part| page.text().find(part).unwrap_or_else(|| panic!("{part}: {}", page.text())));
    assert!(places.is_sorted(), "{}", page.text());
    assert!(
        page.text().contains("<p>Retries get the recorded answer, for as long as the service replays it.</p>"),
        "{}",
        page.text()
    );
}

#[tokio::test]
async fn a_run_is_shown_with_the_session_of_its_process() {
    let backend = MemoryBackend::new();
    let open = async || SharedStoreBuilder::default().open(backend.another_process()).await.unwrap();
    let hold = hold(&open().await, "k").await;
    let row = backend.database().rows("").into_iter().find(|row| row.id == hold.id).expect("its row");
    let session = row.session.expect("it runs").short();
    let desk = Desk::over(layer(open().await), Access::ALL);
    let run = desk.listed("running").await.remove(0);
    assert_eq!((&run["server"], &run["session"]), (&json!("elsewhere"), &json!(session)));
    let page = desk.get(&format!("?id={}", hold.id)).await;
    let parts = [
        &format!("<dd><code>{session}</code></dd>"),
        "another process sees to it",
        "Its handler is running in another process, unless that process has just died",
    ];
    for part in parts {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
}

// A seeded fault: the second page has the first one's outcomes.
#[tokio::test]
async fn what_is_disputed_comes_in_pages() {
    let backend = MemoryBackend::new();
    let store = SharedStoreBuilder::default().open(backend.clone()).await.unwrap();
    leave_interrupted(&store, "k").await;
    leave_damaged_outcomes(&backend, 1..=101);
    let (desk, last) = (Desk::over(layer(store), Access::ALL), format!("{:0<64}", "0065"));
    let first = desk.get("").await;
    assert!(first.text().contains("100 outcomes, and there are more") && first.text().contains("damaged"));
    let (_, link) = first.text().rsplit_once("href=\"?disputed_after=").unwrap();
    let second = desk.get(&format!("?disputed_after={}", link.split_once('#').unwrap().0)).await;
    assert!(second.text().contains("1 outcome<") && second.text().contains(&last), "{}", second.text());
    let next = desk.get("/api/disputed?limit=100").await.json()["next"].as_str().unwrap().to_owned();
    let second = desk.get(&format!("/api/disputed?after={next}")).await.json();
    assert_eq!((&second["operations"][0]["id"], &second["next"]), (&json!(last), &json!(null)));
}

/// Leaves a disputed outcome that can't be read for each number, of an id that begins with it.
fn leave_damaged_outcomes(backend: &MemoryBackend, numbers: impl IntoIterator<Item = u16>) {
    let row = backend.database().rows("").into_iter().find(|row| row.kind == Kind::Interrupted).expect("a row");
    for number in numbers {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let (id, kind) = (RecordId::from_bytes(id), Kind::Disputed);
        backend.database().insert_raw("", Row { id, kind, session: Some(id), ..row.clone() });
    }
}

#[tokio::test]
async fn a_thousand_disputed_outcomes_are_counted_and_that_there_are_more_is_said() {
    let backend = MemoryBackend::new();
    let store = SharedStoreBuilder::default().open(backend.clone()).await.unwrap();
    leave_interrupted(&store, "k").await;
    for (numbers, has_more) in [(1..=1_000, false), (1_001..=1_001, true)] {
        leave_damaged_outcomes(&backend, numbers);
        let disputed = Desk::over(layer(store.clone()), Access::ALL).get("/api/stats").await.json()["disputed"].clone();
        assert_eq!((&disputed["count"], &disputed["has_more"]), (&json!(1_000), &json!(has_more)));
    }
}

#[tokio::test]
async fn a_record_that_can_not_be_read_is_shown_and_settled_if_its_fence_is_known() {
    let (desk, _) = desk().await;
    let id = RecordId::from_bytes([0xda; 32]);
    for query in ["?state=any", "?state=damaged"] {
        let list = desk.get(query).await;
        assert!(list.text().contains(&format!("?id={id}")), "{query}: {}", list.text());
    }
    let page = desk.get(&format!("?id={id}")).await;
    assert!(page.text().contains(">damaged</span>") && page.text().contains("can't be read"), "{}", page.text());
    let actions = forms(page.text()).into_iter().flat_map(|form| form.fields).filter(|(name, _)| name == "action");
    assert_eq!(actions.map(|(_, action)| action).collect::<Vec<_>>(), ["answer", "release"]);
    let listed = desk.listed("damaged").await;
    assert!(listed[0]["reason"].is_string(), "{listed:?}");
    let fence = listed[0]["fence"].as_str().unwrap().to_owned();
    assert_eq!(desk.change(&(id.to_string(), fence), "release").await.json()["results"][0]["result"], "done");
    assert!(desk.listed("damaged").await.is_empty());
}

on_both!(a_record_of_which_nothing_is_known_has_no_button_and_no_times);
async fn a_record_of_which_nothing_is_known_has_no_button_and_no_times<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    leave_interrupted(&store, "k").await;
    let (records, id) = (store.records(), testkit::lab::id("k"));
    let key = [&b"r"[..], id.as_bytes()].concat();
    let mut bytes = records.get(&key).unwrap().to_vec();
    bytes[40] ^= 1;
    records.insert(key, bytes);
    let desk = Desk::over(layer(store), Access::ALL);
    assert!(boxes(desk.get("?state=damaged").await.text()).is_empty());
    let page = desk.get(&format!("?id={id}")).await;
    assert_eq!((page.status.as_u16(), forms(page.text())), (200, Vec::new()));
    assert!(page.text().contains("can't be read") && !page.text().contains("1970"), "{}", page.text());
    assert!(desk.listed("damaged").await[0]["since"].is_null());
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_said_and_the_rest_of_the_page_is_there() {
    let (desk, store) = desk().await;
    store.close().await.unwrap();
    let page = desk.get("").await;
    assert_eq!(page.status, 503);
    for part in ["is closed", "The store does not answer this", "Handlers run", "name=\"key\""] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    let id = testkit::lab::id("k");
    for page in [desk.get(&format!("?id={id}")).await, desk.post("?find", "do=find&key=k").await] {
        assert!(page.status == 503 && page.text().contains("role=\"alert\""), "{}", page.text());
    }
}

#[tokio::test]
async fn each_part_of_the_page_that_the_store_does_not_answer_makes_it_a_503() {
    // The counts come first, then the list, and then what is disputed. What is wrong with a URL is said without a list.
    for (counts_are_kept, query) in [(false, ""), (true, ""), (true, "?state=wrong")] {
        let store = TestStore::new();
        let desk = Desk::over(layer(store.clone()), Access::ALL);
        if counts_are_kept {
            assert_eq!(desk.get("").await.status, 200);
        }
        store.fail_next(StoreCall::List);
        let page = desk.get(query).await;
        assert_eq!((page.status.as_u16(), page.text().matches("does not answer this").count()), (503, 1), "{query}");
    }
}

#[tokio::test]
async fn why_a_database_can_not_be_reached_is_said() {
    let backend = MemoryBackend::new();
    let desk = Desk::over(layer(SharedStoreBuilder::default().open(backend.clone()).await.unwrap()), Access::ALL);
    backend.cut();
    let problem = desk.get("/api/operations").await;
    let detail = problem.json()["detail"].as_str().unwrap().to_owned();
    let why = "the store is not available: the database does not answer: the database can't be reached or has refused: \
               the way is cut";
    assert_eq!((problem.status.as_u16(), &*detail), (503, why));
    let page = desk.get("").await;
    assert!(page.status == 503 && page.text().contains(&detail), "{}", page.text());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_said_and_the_rest_of_the_page_is_there() {
    let store = TestStore::new();
    let desk = Desk::over(layer(store.clone()), Access::ALL);
    let (list, load) = (store.stall(StoreCall::List), store.stall(StoreCall::Load));
    let began = Instant::now();
    let (one, other) = tokio::join!(desk.get(""), desk.get("?state=any"));
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    for page in [one, other] {
        assert_eq!(page.status, 503);
        for part in ["has not answered within 10 seconds", "Handlers run", "name=\"key\""] {
            assert!(page.text().contains(part), "{part}: {}", page.text());
        }
    }
    let id = testkit::lab::id("k");
    assert_eq!(desk.get(&format!("?id={id}")).await.status, 503);
    assert_eq!(desk.get(&format!("/api/operations/{id}")).await.status, 503);
    drop((list, load));
    assert_eq!(desk.get("").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_store_has_not_answered_may_have_been_made_and_says_so() {
    let store = TestStore::new();
    let desk = Desk::over(layer(store.clone()), Access::ALL);
    let operation = desk.interrupted("k").await;
    let answers = store.hold_answers(StoreCall::Resolve);
    let change = desk.change(&operation, "release").await.json();
    assert_eq!(change["results"][0]["result"], "uncertain", "{change}");
    drop(answers);
    assert!(desk.listed("interrupted").await.is_empty());
}
