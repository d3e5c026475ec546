//! The numbers of the live view.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use tower_idempotency::RejectionKind;
use tower_idempotency::engine::Stats;
use tower_idempotency::store::Store;

use super::json;
use super::read::Answered;
use crate::health::health;
use crate::latencies::{BUCKETS, Latencies, Timed, bound};
use crate::site::Site;

/// `GET api/stats`
pub(super) async fn get<St: Store>(State(site): State<Arc<Site<St>>>) -> Answered {
    let overview = site.overview().await?;
    let store = site.operations.store();
    let (is_good, health) = health(&store.health());
    Ok(Json(json!({
        "instance": site.instance,
        "now": json::time(overview.now),
        "store": { "name": store.name(), "is_good": is_good, "health": health },
        "running": json::tally(&overview.running),
        "interrupted": json::tally(&overview.interrupted),
        "disputed": json::tally(&overview.disputed),
        "counts": counts(&site.operations.stats()),
        "latencies": site.latencies.as_ref().map(latencies),
    })))
}

/// Returns all counts of this process, as texts.
fn counts(stats: &Stats) -> Value {
    let counts = [
        ("runs", stats.runs),
        ("replays", stats.replays),
        ("rejections", RejectionKind::ALL.iter().map(|kind| stats.refused(*kind)).sum()),
        ("interrupted", stats.interrupted),
        ("unknown", stats.unknown),
        ("unrecorded", stats.unrecorded),
        ("unprotected", stats.unprotected),
        ("corrupt", stats.corrupt),
        ("reconciled", stats.reconciled),
        ("not_rerun", stats.not_rerun),
        ("disputed", stats.disputed),
        ("consumed", stats.consumed),
        ("lost", stats.lost),
        ("skewed", stats.skewed),
        ("losses_accepted", stats.losses_accepted),
        ("claimed", stats.claimed),
        ("recorded", stats.recorded),
        ("waited", stats.waited),
        ("settled", stats.settled),
        ("swept", stats.swept),
        ("lease_renewals", stats.lease_renewals),
        ("lease_losses", stats.lease_losses),
        ("breaker_openings", stats.breaker_openings),
        ("live", stats.live),
    ];
    let counts = counts.into_iter().map(|(name, count): (_, u64)| (name.to_owned(), json!(count.to_string())));
    Value::Object(Map::from_iter(counts))
}

/// Returns the histograms: the bound of each bucket but the last, and how many durations each has.
fn latencies(latencies: &Latencies) -> Value {
    let bounds: Vec<_> = (0..BUCKETS - 1).map(bound).collect();
    let mut histograms = json!({ "bounds_micros": bounds });
    for timed in Timed::ALL {
        histograms[timed.name()] = json!(latencies.counts(timed).map(|count| count.to_string()).to_vec());
    }
    histograms
}
