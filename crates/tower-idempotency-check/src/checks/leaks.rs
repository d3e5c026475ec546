//! What a replay should leave out.

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::http::message::Answer;
use crate::probe::{Probe, Stop};

pub(super) async fn replayed_headers(probe: &Probe<'_>) -> Result<(), Stop> {
    let (key, first) = probe.first().await?;
    // `Date` has whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let again = probe.settled("the same again, two seconds later", &probe.keyed(&key)).await?;
    if let (Some(date), Some(replayed)) = (first.header("date"), again.header("date"))
        && date == replayed
    {
        probe.found(Severity::Wrong, Rule::Fields, "a replay has the Date of the first answer");
    }
    if again.headers.get_all("date").iter().count() > 1 || again.headers.get_all("content-length").iter().count() > 1 {
        probe.found(Severity::Wrong, Rule::Fields, "a replay has Date or Content-Length twice");
    }
    for hop in ["proxy-authenticate", "proxy-connection", "te", "trailer", "upgrade"] {
        if first.headers.contains_key(hop) && first.headers.get(hop) == again.headers.get(hop) {
            probe.found(Severity::Note, Rule::Fields, format!("a replay has the hop-by-hop header {hop}"));
        }
    }
    // A cookie has commas of its own, so that its lines are no list (RFC 9110, section 5.3).
    let cookies = |answer: &Answer| -> Vec<_> {
        let lines = answer.headers.get_all("set-cookie").iter();
        lines.map(|line| String::from_utf8_lossy(line.as_bytes()).replace(' ', "")).collect()
    };
    let (cookies, replayed) = (cookies(&first), cookies(&again));
    if cookies.len() != replayed.len() && cookies.join(",") == replayed.join(",") {
        probe.found(Severity::Wrong, Rule::Fields, "a replay has the lines of Set-Cookie joined or split at commas");
    }
    if first.headers.contains_key("set-cookie") && again.headers.contains_key("set-cookie") {
        let what = "a replay has Set-Cookie: who knows the key gets the first client's session";
        probe.found(Severity::Note, Rule::Scope, what);
    }
    Ok(())
}
