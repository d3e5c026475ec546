//! 100,000 operations do not make a page of 100,000 rows.

use std::collections::HashSet;

use testkit::lab::asked::leave_interrupted;
use testkit::lab::steps::Steps as _;
use testkit::lab::time::HOUR;
use testkit::lab::{done, hold};
use tower_idempotency::MemoryStore;
use tower_idempotency_admin::Access;

use crate::desk::{Desk, layer};
use crate::document::{attributes, boxes};

/// As many as one page looks at: it makes 10 calls to the store, of 10,000 records each.
const MANY: usize = 100_000;

async fn desk(interrupted: usize, all: usize) -> Desk {
    let store = MemoryStore::builder().max_records(all).max_bytes(1 << 30).build();
    for number in 0..all {
        let key = number.to_string();
        if number < interrupted {
            leave_interrupted(&store, &key).await;
        } else {
            let hold = hold(&store, &key).await;
            store.complete(done(hold, "\x01", HOUR)).await.unwrap();
        }
    }
    Desk::over(layer(store), Access::ALL)
}

/// Reads page after page, at most `most`, and returns the boxes on each.
async fn pages(desk: &Desk, most: usize) -> Vec<Vec<String>> {
    let (mut pages, mut next) = (Vec::new(), String::new());
    while pages.len() < most {
        let page = desk.get(&next).await;
        assert!(page.status == 200 && page.body.len() < 200_000, "{} bytes", page.body.len());
        pages.push(boxes(page.text()));
        let links = attributes(page.text(), "href");
        match links.iter().find(|link| link.contains("after=")) {
            Some(link) => next = link.trim_end_matches("#list").to_owned(),
            None => break,
        }
    }
    pages
}

fn distinct(pages: &[Vec<String>]) -> usize {
    pages.concat().into_iter().collect::<HashSet<_>>().len()
}

#[tokio::test]
async fn a_page_has_100_of_100_000_interrupted_operations_and_says_that_there_are_more() {
    let desk = desk(MANY, MANY).await;
    assert!(desk.get("").await.text().contains("1000 or more"));
    let pages = pages(&desk, 3).await;
    assert!(pages.len() == 3 && pages.iter().all(|page| page.len() == 100));
    assert_eq!(distinct(&pages), 300);
    let none = desk.get("?status=504&state=any").await;
    assert!(none.text().contains("There is no such operation."), "{}", none.text());
    let listed = desk.get("/api/operations?state=interrupted&limit=1000").await.json();
    assert!(listed["operations"].as_array().is_some_and(|listed| listed.len() == 1_000) && listed["next"].is_string());
}

#[tokio::test]
async fn the_few_interrupted_ones_among_100_000_are_all_on_the_first_pages() {
    let desk = desk(250, MANY + 1).await;
    let pages = pages(&desk, 9).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
    assert_eq!(distinct(&pages), 250);
    assert_eq!(boxes(desk.get("?state=any").await.text()).len(), 100);
    // Where none is found, it is said that there are more records, and the next page has the last one.
    let page = desk.get("?status=504&state=any").await;
    assert!(page.text().contains("None so far: many records were looked at, and there are more."), "{}", page.text());
    let links = attributes(page.text(), "href");
    let next = links.iter().find(|link| link.contains("after=")).unwrap().trim_end_matches("#list").to_owned();
    let last = desk.get(&next).await;
    assert!(last.text().contains("There is no such operation."), "{}", last.text());
}
