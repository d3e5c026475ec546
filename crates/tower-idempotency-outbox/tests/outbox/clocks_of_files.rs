//! The two clocks of an outbox in files: a wall clock that is wrong gives no call up, and sends none too late.

use std::time::Duration;

use testkit::process::until;
use tower_idempotency_outbox::{Outbox as _, State};

use crate::clocks::{all_delivered, lose};
use crate::home::{Home as _, SledHome, call};
use crate::server::{entry, relay, run_until, server_of};

/// In milliseconds, which the times of an entry are in.
const HOUR: u64 = 60 * 60 * 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_in_files_is_opened_with_a_wall_clock_that_is_wrong() {
    let home = SledHome::new().await;
    let (well, log) = server_of(200, &[], "");
    home.outbox().put(&call(1)).await.unwrap();
    all_delivered(home.outbox(), 1..2, relay(home.outbox(), &well)).await;
    home.outbox().put(&call(2)).await.unwrap();
    lose(home.outbox(), 2..3).await;
    let home = home.opened_ahead(14 * 24).await;
    let outbox = home.outbox();
    // What was delivered is there, and is not sent again.
    outbox.put(&call(1)).await.unwrap();
    outbox.put(&call(3)).await.unwrap();
    let held = async || entry(outbox, call(2).key()).await.reason.is_some_and(|why| why.starts_with("held"));
    let both = async || held().await && entry(outbox, call(3).key()).await.state == State::Delivered;
    relay(outbox, &well).run(until("one is held, and another one delivered", both)).await;
    assert_eq!(entry(outbox, call(1).key()).await.state, State::Delivered);
    assert_eq!(entry(outbox, call(2).key()).await.state, State::Waiting);
    assert_eq!(log.bodies(), ["charge 1", "charge 3"]);
    // By its own clock, too, its time is over.
    let by_both = relay(outbox, &well).give_up_after(Duration::from_nanos(1));
    home.end_lease(&entry(outbox, call(2).key()).await).await;
    run_until(by_both, outbox, call(2).key(), State::GivenUp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_first_tried_by_a_wall_clock_that_was_ahead_is_not_sent_by_a_later_process() {
    let home = SledHome::new().await;
    home.outbox().put(&call(1)).await.unwrap();
    lose(home.outbox(), 1..2).await;
    let (well, log) = server_of(200, &[], "");
    // Its first try lies ten hours ahead, as the clock has been mended since.
    let ahead = |home: &SledHome| {
        let tree = home.outbox().tree();
        let (key, value) = tree.scan_prefix(b"o").next().unwrap().unwrap();
        let mut head: serde_json::Value = serde_json::from_slice(&value).unwrap();
        head["first_try"] = (head["first_try"].as_u64().unwrap() + 10 * HOUR).into();
        tree.insert(key, head.to_string().as_str()).unwrap();
    };
    ahead(&home);
    // How long ago it was can't be known: the process before may have ended long ago.
    let home = home.opened_ahead(0).await;
    let held = async || entry(home.outbox(), call(1).key()).await.reason.is_some_and(|why| why.starts_with("held"));
    relay(home.outbox(), &well).run(until("it is held", held)).await;
    assert!(log.all().is_empty());
    // In one opening, the outbox's own clock knows.
    home.outbox().put(&call(2)).await.unwrap();
    lose(home.outbox(), 2..3).await;
    run_until(relay(home.outbox(), &well), home.outbox(), call(2).key(), State::Delivered).await;
}
