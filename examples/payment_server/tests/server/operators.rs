//! What operators see and settle over a shared database, on the page and by its API, and what the metrics count.

use serde_json::{Value, json};
use tempfile::tempdir;
use testkit::Call;
use testkit::payment_server::Server;
use testkit::process::signal;

use super::shared::{charges, charging, over_each_database, two, until};

over_each_database! {
    operators_see_and_settle_what_all_servers_have_and_the_metrics_count_it
    a_charge_that_ends_after_an_operator_freed_its_key_is_listed_as_disputed
}

/// What a scrape of a server's metrics reads.
pub(crate) struct Scrape(pub(crate) String);

impl Scrape {
    pub(crate) async fn of(server: &Server) -> Self {
        Self(server.get("/metrics").await.text().to_owned())
    }

    /// The value of this metric, with its labels.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        let line = format!("idempotency_{name} ");
        self.0.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok())
    }
}

/// Checks how many operations are in flight, interrupted and disputed, in the numbers of the API and of the page.
async fn are_counted(server: &Server, counts: [usize; 3]) {
    let stats = server.send(&Call::operator("/admin/api/stats")).await.json();
    assert_eq!((&stats["store"]["is_good"], &stats["store"]["health"]), (&true.into(), &"works".into()), "{stats}");
    let page = server.send(&Call::operator("/admin")).await;
    for (name, count) in ["running", "interrupted", "disputed"].into_iter().zip(counts) {
        assert_eq!(stats[name]["count"], count, "{name}: {stats}");
        let (_, row) = page.text().split_once(&format!("data-summary=\"{name}\"")).unwrap();
        let (row, _) = row.split_once("</tr>").unwrap();
        assert!(row.contains(&format!("data-part=\"count\">{count}</span>")), "{name}: {row}");
    }
}

async fn disputed(server: &Server) -> Vec<Value> {
    server.send(&Call::operator("/admin/api/disputed")).await.json()["operations"].as_array().unwrap().clone()
}

async fn operators_see_and_settle_what_all_servers_have_and_the_metrics_count_it(url: &str) {
    let directory = tempdir().unwrap();
    let [one, other] = two(&directory, url, "--namespace operators --lease 60").map(|setup| setup.start());
    let [answered, freed] = ["answered", "freed"].map(|key| Call::charge(key, "tok_timeout"));
    for call in [&answered, &freed] {
        assert_eq!(one.send(call).await.status, 504);
    }
    let known = Call::charge("known", "tok_visa");
    assert_eq!(one.send(&known).await.status, 200);
    assert!(other.send(&known).await.is_replay());
    let slow = Call::charge("slow", "tok_slow");
    let _waits = one.charging_slowly(&slow).await;
    one.pause().await;

    // The other server has run none of them.
    for (state, count, status) in [("running", 1, None), ("interrupted", 2, Some(504)), ("completed", 1, Some(200))] {
        let listed = other.send(&Call::operator(&format!("/admin/api/operations?state={state}"))).await.json();
        let listed = listed["operations"].as_array().unwrap();
        assert_eq!(listed.len(), count, "{state}: {listed:#?}");
        for operation in listed {
            assert_eq!((&operation["state"], &operation["status"]), (&state.into(), &status.into()), "{operation}");
            let label = operation["label"].as_str().unwrap();
            assert!(label.starts_with("/v1/charges for account "), "{operation}");
        }
        let page = other.send(&Call::operator(&format!("/admin?state={state}"))).await;
        assert_eq!(page.text().matches("<bdi>/v1/charges for account ").count(), count, "{state}: {}", page.text());
    }
    are_counted(&other, [1, 2, 0]).await;
    let seen = Scrape::of(&other).await;
    let by_label = "interrupted_by_label{cause=\"answered\",label=\"/v1/charges\"}";
    for (name, value) in [
        ("requests_total{outcome=\"ran\"}", 0.0),
        ("requests_total{outcome=\"replayed\"}", 1.0),
        ("interrupted_operations", 2.0),
        (by_label, 2.0),
        ("store_healthy", 1.0),
        ("breaker_open", 0.0),
        ("store_queue_writes", 0.0),
    ] {
        assert_eq!(seen.value(name), Some(value), "{name}: {}", seen.0);
    }
    assert!(seen.value("store_connections").is_some(), "{}", seen.0);
    for (name, most) in [("interrupted_oldest_seconds", 60.0), ("store_lease_seconds", 60.0)] {
        assert!(seen.value(name).is_some_and(|value| value > 0.0 && value < most), "{name}: {}", seen.0);
    }
    one.resume();
    assert_eq!(other.send_until_settled(&slow).await.status, 200);

    // It settles them, and forgets what is done.
    let [first, second] = &other.interrupted().await[..] else { panic!("two are interrupted") };
    assert_eq!(other.answer(first, "{\"paid\":true}").await, "done");
    assert_eq!((other.answer(first, "{}").await, other.release(second).await), ("stale".to_owned(), "done".to_owned()));
    let told = [one.send(&answered).await, one.send(&freed).await];
    assert_eq!(told.each_ref().map(|answer| answer.status.as_u16()), [200, 504], "{told:?}");
    assert_eq!((told[0].is_replay(), told[0].text(), told[1].is_replay()), (true, "{\"paid\":true}", false));
    let purge = Call::operator_post("/admin/api/purge", &json!({ "older_than": "0s" }));
    assert_eq!(other.send(&purge).await.json()["forgotten"], 3);
    // Another server may go on replaying what it has in memory.
    assert!(!other.send(&known).await.is_replay());
    are_counted(&other, [0, 1, 0]).await;
    let (ran, seen) = (Scrape::of(&one).await, Scrape::of(&other).await);
    for (seen, name, value) in [
        (&ran, "requests_total{outcome=\"ran\"}", 5.0),
        (&ran, "requests_total{outcome=\"replayed\"}", 1.0),
        (&ran, "settled_total{by=\"operator\"}", 0.0),
        (&ran, "interrupted_total{cause=\"answered\"}", 3.0),
        (&seen, "requests_total{outcome=\"ran\"}", 1.0),
        (&seen, "settled_total{by=\"operator\"}", 2.0),
        (&seen, "interrupted_operations", 1.0),
        (&seen, by_label, 1.0),
    ] {
        assert_eq!(seen.value(name), Some(value), "{name}: {}", seen.0);
    }
}

async fn a_charge_that_ends_after_an_operator_freed_its_key_is_listed_as_disputed(url: &str) {
    let directory = tempdir().unwrap();
    let [one, other] = two(&directory, url, "--namespace disputed --lease 12").map(|setup| setup.start());
    let call = Call::charge("disputed", "tok_slow");
    let charging = charging(&one, &call).await;
    signal(one.id(), "STOP");
    let listed = until("the lease is over", async || other.interrupted().await.pop()).await;
    assert!(disputed(&other).await.is_empty());
    assert_eq!(other.release(&listed).await, "done");
    signal(one.id(), "CONT");
    assert_eq!(charging.await.refusal(), (500, "outcome-unknown".to_owned()));
    for server in [&other, &one] {
        let line = until("a disputed outcome", async || disputed(server).await.pop()).await;
        assert_eq!((line["id"].as_str(), line["fence"].as_str()), (Some(&*listed.id), Some(&*listed.fence)));
        assert!(line["since"].as_str().is_some_and(|since| since.starts_with("20")), "{line}");
        let outcome = format!("/admin/api/operations/{}/outcome?disputed={}", listed.id, listed.fence);
        let outcome = server.send(&Call::operator(&outcome)).await.json();
        assert!(outcome["body"].as_str().is_some_and(|body| body.contains("\"amount\":")), "{outcome}");
        are_counted(server, [0, 0, 1]).await;
    }
    for (server, count) in [(&one, 1.0), (&other, 0.0)] {
        let seen = Scrape::of(server).await;
        for name in ["disputed_total", "lease_changes_total{change=\"lost\"}"] {
            assert_eq!(seen.value(name), Some(count), "{name}: {}", seen.0);
        }
    }
    assert_eq!(charges([&one, &other]).await, 1);
}
