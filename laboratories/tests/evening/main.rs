//! An operator's evening: traffic, a server that dies in the middle of a charge, the alert, the charge found on the
//! operators' page and settled there, the client's retry answered, the alert over. A real server and a real browser.
//!
//! The second evening: 300 operations at once. And what other pages try in the same browser, and what pages of other
//! origins read of the proxy's answers.
//!
//! `SCREENSHOTS=DIRECTORY` writes pictures of the page. Those in the guide are made so, and have 16 colours:
//!
//! ```text
//! SCREENSHOTS=$PWD/docs/running/screenshots cargo test -p laboratories --test evening over_sled
//! ```

#![cfg(target_os = "linux")]

mod alert;
mod attacks;
mod browser;
mod cors;
mod evening;
mod many;
mod pictures;

use browser::{Browser, Manner};
use evening::{Evening, Hands};
use pictures::Pictures;
use tempfile::tempdir;
use testkit::payment_server::Setup;
use testkit::postgres::shared_server;

#[tokio::test(flavor = "multi_thread")]
async fn an_evening_over_sled() {
    let Some(browser) = Browser::start("an evening over sled", Manner::default()).await else { return };
    let directory = tempdir().unwrap();
    let evening = Evening { setup: Setup::new(&directory), browser, pictures: Pictures::wanted(), hands: Hands::Mouse };
    evening.pass().await;
}

/// Without JavaScript, and with the keyboard alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_evening_over_postgresql() {
    let promise = "an evening over PostgreSQL";
    let Some(database) = shared_server(promise) else { return };
    let manner = Manner { has_no_javascript: true, ..Manner::default() };
    let Some(browser) = Browser::start(promise, manner).await else { return };
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory).with(&format!("--store {} --namespace evening --lease 12", database.url()));
    let evening = Evening { setup, browser, pictures: Pictures::none(), hands: Hands::Keyboard };
    evening.pass().await;
}
