//! Orders are written with their calls in one transaction, relays carry the calls to a payment server, both ends are
//! killed at random, and the network is cut at every byte. At the end there is one charge for each order, with its
//! amount, in the order of the customer's orders, and the answer that is kept for each order is of that charge.
//!
//! Real processes, real sockets, and SIGKILL. Over sled there is one shop; over PostgreSQL there are two, which share
//! an outbox. The payment server charges and records in one transaction. In one run, the proxy of `idem proxy` is in
//! front of it, keeps its own records over sled, sends again what was interrupted, and is killed as well; then the
//! network is cut on both sides of it.
//!
//! The long form; its last lines have the figures:
//!
//! ```text
//! CALLS=10000 cargo test -p laboratories --test ledgers after -- --nocapture
//! ```
//!
//! In its control each attempt has a new key, and the ledgers differ.
#![cfg(target_os = "linux")]

mod cut;
mod front;
mod judge;
mod shop;
mod world;

use testkit::control::{report, violations_with};
use testkit::dice::number;
use testkit::postgres::own_server;

use shop::{NEW_KEYS, Place};
use world::{Kills, World};

const OVER_SLED: &str = "after_kills_and_cuts_the_ledgers_of_shop_and_server_are_equal_over_sled";

#[tokio::test(flavor = "multi_thread")]
async fn after_kills_and_cuts_the_ledgers_of_shop_and_server_are_equal_over_sled() {
    shop::run_if_child().await;
    front::run_if_child().await;
    let directory = tempfile::tempdir().unwrap();
    run(Place::Sled(directory.path().join("shop")), 1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kills_and_cuts_the_ledgers_of_shop_and_server_are_equal_behind_the_proxy() {
    let directory = tempfile::tempdir().unwrap();
    run(Place::Sled(directory.path().join("shop")), 1, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kills_and_cuts_the_ledgers_of_shops_and_server_are_equal_over_postgres() {
    let Some(server) = own_server("that the ledgers over PostgreSQL are equal", &[]) else { return };
    run(Place::Postgres(server.url()), 2, false).await;
}

#[test]
fn with_a_new_key_for_each_attempt_the_ledgers_differ() {
    assert!(violations_with(OVER_SLED, &[(NEW_KEYS, "1"), ("CALLS", "300")]) > 0);
}

async fn run(place: Place, shops: usize, has_front: bool) {
    let calls = number("CALLS").unwrap_or(400);
    place.prepare().await;
    let mut world = World::start(place.clone(), shops, calls, has_front, OVER_SLED).await;
    let kills = world.kill_until_all_is_done().await;
    let (charges, cuts) = world.end().await;
    let ledger = place.ledger().await;
    let violations = judge::violations(&ledger, &charges, calls);
    let tries: u32 = ledger.iter().map(|order| order.tries).sum();
    let name = place.name();
    let Kills { shops, servers, fronts } = kills;
    let figures = format!(
        "ledgers over {name}: calls {calls}, tries {tries}, shops killed {shops}, servers killed {servers}, proxies \
         killed {fronts}, connections cut {cuts}"
    );
    report(&figures, &violations);
    // A run without faults shows nothing.
    assert!(shops > 0 && servers > 0 && (fronts > 0 || !has_front) && cuts > 20, "{figures}");
}
