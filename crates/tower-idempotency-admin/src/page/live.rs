//! The numbers, in two sections: "Now", what is not over, and "Live", what this process has counted. They are whole
//! without JavaScript; the script renews them, and draws.

use maud::{Markup, html};
use tower_idempotency::RejectionKind;
use tower_idempotency::store::Store;

use crate::health::health;
use crate::latencies::{Timed, quantile};
use crate::overview::{Overview, Summary};
use crate::site::Site;
use crate::text::{age, short_span, shown};

/// Returns what is not over: how many, and how old.
pub(super) fn now<St: Store>(site: &Site<St>, overview: Result<Overview, Markup>) -> Markup {
    let store = site.operations.store();
    let (is_good, words) = health(&store.health());
    html! {
        section aria-labelledby="now" {
            h2 id="now" { "Now" }
            p { "The store, " strong { (shown(store.name())) } ", " span #health .bad[!is_good] { (words) } "." }
            @match overview {
                Err(complaint) => (complaint),
                Ok(Overview { running, interrupted, disputed, now }) => {
                    table.numbers {
                        caption { "Operations that are not over" }
                        thead { tr { th scope="col" { "What" } th scope="col" { "How many" } th scope="col" { "Oldest" } } }
                        tbody {
                            (row("running", "In flight", &running, now, false))
                            (row("interrupted", "Interrupted", &interrupted, now, true))
                            (row("disputed", "Disputed", &disputed, now, true))
                        }
                    }
                }
            }
        }
    }
}

fn row(name: &str, words: &str, summary: &Summary, now: tower_idempotency::clock::Timestamp, is_bad: bool) -> Markup {
    html! {
        tr data-summary=(name) {
            th scope="row" {
                @match name {
                    "disputed" => a href="#disputed" { (words) },
                    state => a href={ "?state=" (state) "#list" } { (words) },
                }
            }
            td data-label="How many" { span data-part="count" .bad[is_bad && summary.count > 0] {
                (summary.count) @if summary.has_more { " or more" }
            } }
            td data-label="Oldest" { span data-part="oldest" {
                @match summary.oldest { Some(oldest) => (age(oldest, now)), None => "–" }
            } }
        }
    }
}

/// Returns what this process has counted and timed.
pub(super) fn live<St: Store>(site: &Site<St>) -> Markup {
    let stats = site.operations.stats();
    let rejections = RejectionKind::ALL.iter().map(|kind| stats.refused(*kind)).sum();
    let counts: [(&str, &str, u64); 5] = [
        ("runs", "Handlers run", stats.runs),
        ("replays", "Replayed", stats.replays),
        ("rejections", "Rejected", rejections),
        ("interrupted", "Interrupted here", stats.interrupted),
        ("unsaved", "Not recorded", stats.unsaved),
    ];
    html! {
        section aria-labelledby="live" #live-view {
            h2 id="live" { "Live" }
            p { "What this process has counted since it was started. Other servers over this store count for themselves." }
            p.script-only hidden {
                button type="button" #pause { "Pause" }
                " " span #live-status role="status" {}
            }
            table.numbers {
                caption { "Requests" }
                thead { tr {
                    th scope="col" { "What" } th scope="col" { "Total" }
                    th.script-only hidden scope="col" { "Per second" } th.script-only hidden scope="col" { "Last 5 minutes" }
                } }
                tbody { @for (name, words, count) in counts {
                    tr data-count=(name) {
                        th scope="row" { (words) }
                        td data-label="Total" { span data-part="total" { (count) } }
                        td.script-only hidden data-label="Per second" { span data-part="rate" { "–" } }
                        td.script-only hidden { span.graph data-part="graph" {} }
                    }
                } }
            }
            @if let Some(latencies) = &site.latencies {
                table.numbers {
                    caption { "Times, " span #times-of { "since the start" } }
                    thead { tr {
                        th scope="col" { "What" } th scope="col" { "Median" } th scope="col" { "p99" }
                        th.script-only hidden scope="col" { "p99, last 5 minutes" }
                    } }
                    tbody { @for (timed, name, words) in Timed::ALL {
                        @let counts = latencies.counts(timed);
                        tr data-time=(name) {
                            th scope="row" { (words) }
                            @for (label, part, share) in [("Median", "median", 0.5), ("p99", "high", 0.99)] {
                                td data-label=(label) { span data-part=(part) {
                                    @match quantile(&counts, share) { Some(time) => (short_span(time)), None => "–" }
                                } }
                            }
                            td.script-only hidden { span.graph data-part="graph" {} }
                        }
                    } }
                }
            }
        }
    }
}
