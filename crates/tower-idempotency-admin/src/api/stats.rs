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
        "running": json::summary(&overview.running),
        "interrupted": json::summary(&overview.interrupted),
        "disputed": json::summary(&overview.disputed),
        "counts": counts(&site.operations.stats()),
        "latencies": site.latencies.as_ref().map(latencies),
    })))
}

/// Returns all counts of this process, as texts.
fn counts(stats: &Stats) -> Value {
    let rejections = RejectionKind::ALL.iter().map(|kind| stats.refused(*kind)).sum();
    let counts = stats.all().into_iter().chain([("rejections", rejections)]);
    let counts = counts.map(|(name, count)| (name.to_owned(), json!(count.to_string())));
    Value::Object(Map::from_iter(counts))
}

/// Returns the histograms: the bound of each bucket but the last, and how many durations each has.
fn latencies(latencies: &Latencies) -> Value {
    let bounds: Vec<_> = (0..BUCKETS - 1).map(bound).collect();
    let mut histograms = json!({ "bounds_micros": bounds });
    for (timed, name, _) in Timed::ALL {
        histograms[name] = json!(latencies.counts(timed).map(|count| count.to_string()).to_vec());
    }
    histograms
}
