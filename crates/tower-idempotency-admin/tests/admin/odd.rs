//! Outcomes that came too late, records that can't be read, and a store that does not answer.

use testkit::lab::asked::leave_interrupted;
use testkit::lab::{on_disk, tree};
use tower_idempotency::store::Store as _;
use tower_idempotency::store::shared::{Kind, Row, SharedStore, SharedStoreBuilder};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{RecordId, SledStore};
use tower_idempotency_admin::Access;
use tower_idempotency_conformance::memory_backend::MemoryBackend;

use crate::desk::{Desk, layer};
use crate::document::{boxes, forms};

/// An interrupted operation, a disputed outcome, and a row that can't be read.
async fn desk() -> (Desk<SharedStore<MemoryBackend>>, SharedStore<MemoryBackend>) {
    let backend = MemoryBackend::new();
    let store = SharedStoreBuilder::default().open(backend.clone()).await.unwrap();
    leave_interrupted(&store, "k").await;
    let row = backend.database().rows("").into_iter().find(|row| row.kind == Kind::Interrupted).expect("a row");
    let disputed = RecordId::from_bytes([0xd1; 32]);
    let named = Some(testkit::lab::id("k"));
    backend.database().insert_raw("", Row { id: disputed, kind: Kind::Disputed, session: named, ..row.clone() });
    let damaged = RecordId::from_bytes([0xda; 32]);
    backend.database().insert_raw("", Row { id: damaged, kind: Kind::Completed, state: row.state.slice(..3), ..row });
    (Desk::over(layer(store.clone()), Access::ALL), store)
}

#[tokio::test]
async fn what_is_disputed_is_counted_and_listed() {
    let (desk, _) = desk().await;
    let id = testkit::lab::id("k");
    let page = desk.get("").await;
    assert!(page.text().contains("1 outcomes"), "{}", page.text());
    assert!(page.text().contains(&format!("<td data-label=\"Operation\"><a href=\"?id={id}\">")), "{}", page.text());
    let disputed = desk.get("/api/disputed").await.json();
    assert_eq!(disputed["disputed"][0]["id"], id.to_string());
    assert_eq!(desk.get("/api/stats").await.json()["disputed"]["count"], 1);
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
    assert!(page.text().contains("can't be read"), "{}", page.text());
    let actions = forms(page.text()).into_iter().flat_map(|form| form.fields).filter(|(name, _)| name == "action");
    assert_eq!(actions.map(|(_, action)| action).collect::<Vec<_>>(), ["answer", "release"]);
    let listed = desk.listed("damaged").await;
    assert!(listed[0]["reason"].is_string(), "{listed:?}");
    let fence = listed[0]["fence"].as_str().unwrap().to_owned();
    assert_eq!(desk.change(&(id.to_string(), fence), "release").await.json()["results"][0]["result"], "done");
    assert!(desk.listed("damaged").await.is_empty());
}

#[tokio::test]
async fn a_record_of_which_nothing_is_known_has_no_button_and_no_times() {
    let (_directory, store) = on_disk(SledStore::builder());
    leave_interrupted(&store, "k").await;
    let (records, id) = (tree(&store), testkit::lab::id("k"));
    let key = [&b"r"[..], id.as_bytes()].concat();
    let mut bytes = records.get(&key).unwrap().unwrap().to_vec();
    bytes[40] ^= 1;
    records.insert(key, bytes).unwrap();
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

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_said_and_the_rest_of_the_page_is_there() {
    let store = TestStore::new();
    let desk = Desk::over(layer(store.clone()), Access::ALL);
    let (list, load) = (store.stall(StoreCall::Interrupted), store.stall(StoreCall::Load));
    let (one, other) = tokio::join!(desk.get(""), desk.get("?state=any"));
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
