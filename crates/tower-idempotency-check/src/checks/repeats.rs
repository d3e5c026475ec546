//! The same request again, and many times at once.

use http::Method;

use crate::dialect::{Dialect, Rule};
use crate::effects::inferred;
use crate::finding::Severity;
use crate::http::message::Answer;
use crate::probe::{Probe, Stop};

use super::answers::{compare, headers, is_marked, note_if_marked, note_if_stuck};

/// Where a server says what clients can expect of its keys.
const DESCRIPTION: &str = "/.well-known/idempotency";
/// How many copies come at once.
const COPIES: usize = 100;
/// How often they come.
const BURSTS: usize = 4;

/// Sends the endpoint's request, and finds out whether the server honours keys in quotes, as the draft has them, or
/// bare ones, as most clients send them.
pub(super) async fn works(probe: &Probe<'_>) -> Result<(), Stop> {
    probe.shared(|shared| shared.ignores_keys = false);
    let forms = if probe.dialect().name == "draft" { &[true, false][..] } else { &[false] };
    let mut worked: Option<Answer> = None;
    let mut refused = None;
    for is_quoted in forms {
        let form = if *is_quoted { "a request with a key in quotes" } else { "a request with a bare key" };
        let (message, before) = (probe.keyed_as(&probe.new_key(), *is_quoted), probe.ledger().await?);
        let first = probe.send(form, &message).await?;
        if !first.is_success() {
            refused.get_or_insert(first);
            continue;
        }
        probe.shared(|shared| shared.is_quoted = *is_quoted);
        let effects = probe.effects(&before, [&first]).await?;
        if effects != 1 && worked.is_none() {
            return Err(Stop::Other(format!(
                "one request has {effects} effects by the plan's count: correct the plan"
            )));
        }
        worked = Some(first.clone());
        if forms.len() == 1 {
            break;
        }
        let again = probe.settled("the same again", &message).await?;
        if again.says_same(&first) && probe.effects(&before, [&first, &again]).await? <= 1 {
            if !is_quoted {
                let what = "a key in quotes is not honoured, and a bare one is: the checks go on with bare keys";
                probe.found(Severity::Note, Rule::Syntax, what);
            }
            break;
        }
    }
    let Some(worked) = worked else {
        let why = refused.map(|answer| answer.summary()).unwrap_or_default();
        let hint = if probe.endpoint.request.body.is_empty() { " Give a body that succeeds, by `--data`." } else { "" };
        return Err(Stop::Other(format!("the first request does not succeed: {why}{hint}")));
    };
    tell_apart(probe, &worked).await?;
    if probe.dialect().does_echo && worked.header(&probe.endpoint.key_header).is_none() {
        probe.found(Severity::Note, Rule::Echo, "the answer does not repeat the key");
    }
    Ok(())
}

/// Finds out whether two operations get equal answers, such as 204. Then only a count tells them apart.
async fn tell_apart(probe: &Probe<'_>, worked: &Answer) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let (key, another) = probe.first().await?;
    // A server that takes both for one operation is for the check `new-key` to find.
    let is_counted = probe.can_count() && probe.effects(&before, [&another]).await? == 1;
    let are_alike = another.says_same(worked);
    if are_alike && !probe.can_count() {
        let why = "two operations get equal answers, so that nothing can be inferred from them: say how to count, by `--count`";
        return Err(Stop::Other(why.to_owned()));
    }
    probe.shared(|shared| shared.are_alike = are_alike && is_counted);
    // What differs from one replay to the next is of the message, whatever its name.
    let again = probe.settled("a retry", &probe.keyed(&key)).await?;
    let third = probe.settled("another retry", &probe.keyed(&key)).await?;
    let is_replay = again.status == third.status && again.body == third.body;
    let differ = headers(&again, &third).into_iter().filter(|difference| is_replay && difference.may_be_anew());
    probe.shared(|shared| shared.anew = differ.map(|difference| difference.name).collect());
    Ok(())
}

pub(super) async fn same_key_again(probe: &Probe<'_>) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let (key, first) = probe.first().await?;
    let again = probe.settled("the same request again", &probe.keyed(&key)).await?;
    let third = probe.settled("and again", &probe.keyed(&key)).await?;
    let effects = probe.effects(&before, [&first, &again, &third]).await?;
    let did_run = |answer: &Answer| answer.is_success() && !is_marked(answer);
    if effects >= 3 && did_run(&again) && did_run(&third) {
        probe.shared(|shared| shared.ignores_keys = true);
        let what = format!(
            "three requests with one key have 3 effects: the server does not look at keys, and the second gets {}",
            again.summary()
        );
        // Three answers that all differ show it without the plan's count, so it does not rest on that.
        if probe.can_count() && inferred([&first, &again, &third]) == 3 {
            probe.found(Severity::Dangerous, Rule::Retry, what);
        } else {
            probe.counted(Severity::Dangerous, Rule::Retry, what);
        }
        return Ok(());
    }
    note_if_marked(probe, &first);
    compare(probe, &first, &again);
    compare(probe, &first, &third);
    let anew = probe.shared(|shared| shared.anew.join(", "));
    if !anew.is_empty() {
        let what = format!("these headers differ from one replay to the next, and are not compared: {anew}");
        probe.found(Severity::Note, Rule::Retry, what);
    }
    probe.once(effects, Rule::Retry, format!("three requests with one key have {effects} effects"));
    if !is_marked(&again) && again.is_success() {
        let what = "a client can't see that the second answer is a replay: no header says so";
        probe.found(Severity::Note, Rule::Marker, what);
    }
    Ok(())
}

pub(super) async fn another_key(probe: &Probe<'_>) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let (_, first) = probe.first().await?;
    let other = probe.send("the same with another key", &probe.keyed(&probe.new_key())).await?;
    if !other.is_success() {
        let what = format!("the same request with a new key is refused: {}", other.summary());
        probe.found(Severity::Wrong, Rule::Retry, what);
        return Ok(());
    }
    if probe.can_count() && probe.effects(&before, [&first, &other]).await? < 2 {
        let what = "two orders with two keys are taken for one: the second is lost";
        probe.counted(Severity::Dangerous, Rule::Retry, what);
    }
    Ok(())
}

/// Looks at a key before and after its request, in the way of tower-idempotency, if the server says that it has it.
pub(super) async fn look(probe: &Probe<'_>) -> Result<(), Stop> {
    let described = probe.send("what the server says of its keys", &probe.bare(&Method::GET, DESCRIPTION)).await?;
    let says: serde_json::Value = serde_json::from_slice(&described.body).unwrap_or_default();
    let Some(header) = says["probe_header"].as_str().filter(|_| described.is_success()) else {
        return Err(Stop::Skip("no `probe_header` in `/.well-known/idempotency` says that the server answers probes"));
    };
    let (key, before) = (probe.new_key(), probe.ledger().await?);
    let looks = probe.keyed(&key).with(header, "?1".to_owned());
    let unknown = probe.send("a probe of a new key", &looks).await?;
    if unknown.is_success() || probe.effects(&before, [&unknown]).await? > 0 {
        let what = format!("a probe of a new key runs: it gets {}", unknown.summary());
        probe.found(Severity::Dangerous, Rule::Probe, what);
        return Ok(());
    }
    if unknown.status.as_u16() != 404 {
        let what = format!("a probe of a new key gets {}, and not 404", unknown.summary());
        probe.found(Severity::Wrong, Rule::Probe, what);
    }
    let first = probe.succeeds("the first request", &probe.keyed(&key)).await?;
    let replay = probe.send("a probe after the request", &looks).await?;
    compare(probe, &first, &replay);
    probe.once(probe.effects(&before, [&first, &replay]).await?, Rule::Probe, "a probe after the request runs");
    let Some((name, value)) = &probe.endpoint.other_account else { return Ok(()) };
    let other = probe.send("another account's probe", &looks.set(name, value)).await?;
    if other.status != unknown.status {
        let what = format!("another account's probe gets {}: it learns that the key was used", other.summary());
        probe.found(Severity::Dangerous, Rule::Scope, what);
    }
    Ok(())
}

pub(super) async fn at_once(probe: &Probe<'_>) -> Result<(), Stop> {
    // A race is not lost each time.
    for _ in 0..BURSTS {
        burst(probe, &probe.endpoint.request.body).await?;
        if probe.is_broken() {
            return Ok(());
        }
    }
    match &probe.endpoint.settings.slow {
        Some(slow) => burst(probe, slow).await,
        None => Ok(()),
    }
}

async fn burst(probe: &Probe<'_>, body: &str) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let message = probe.keyed(&probe.new_key()).with_body(body);
    let answers = probe.at_once("copies of the request", &vec![message.clone(); COPIES]).await?;
    let came: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    let after = probe.settled("once more", &message).await?;
    let effects = probe.effects(&before, came.iter().copied().chain([&after])).await?;
    probe.once(effects, Rule::InFlight, format!("{COPIES} copies at once have {effects} effects"));
    if probe.can_count() && effects == 0 {
        probe.counted(Severity::Dangerous, Rule::InFlight, format!("{COPIES} copies at once have no effect at all"));
    }
    let lost = answers.len() - came.len();
    if lost > 0 {
        let what =
            format!("{lost} of {COPIES} copies get no answer: the server may accept too few connections at once");
        probe.found(Severity::Note, Rule::Connection, what);
    }
    if came.is_empty() {
        return Err(Stop::Other("no copy got an answer".to_owned()));
    }
    note_if_stuck(probe, "copies at once", &after);
    let successes = || came.iter().copied().chain([&after]).filter(|answer| answer.is_success());
    if let Some(first) = successes().next()
        && let Some(other) = successes().find(|other| !other.says_same(first))
    {
        let what = format!("copies get different answers: {} and {}", first.summary(), other.summary());
        probe.differs(Severity::Wrong, Rule::InFlight, "body", what);
    }
    let strange = came.iter().find(|answer| !answer.is_success() && !answer.says_wait());
    if let Some(strange) = strange {
        let what = format!("a copy gets {}, which no client takes for \"wait\"", strange.summary());
        probe.found(Severity::Wrong, Rule::InFlight, what);
    }
    let in_flight = [409, probe.dialect().in_flight];
    let mut refused = came.iter().filter(|answer| !answer.is_success() && in_flight.contains(&answer.status.as_u16()));
    if let Some(what) = refused.find_map(|refused| wrong_in_flight(probe.dialect(), refused)) {
        probe.found(Severity::Wrong, Rule::InFlight, what);
    }
    Ok(())
}

/// What is wrong with a refusal of a request whose first copy still runs.
pub(super) fn wrong_in_flight(dialect: &Dialect, refused: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&refused.body);
    let code = dialect.in_flight_code.filter(|code| !text.contains(code));
    let after = refused.header("retry-after");
    let is_number = |value: &str| value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty();
    let how = match (code, after) {
        _ if refused.status.as_u16() != dialect.in_flight => format!(", and not with {}", dialect.in_flight),
        // Its status does not say so.
        _ if dialect.is_of_tools() && !refused.says_wait() => " without saying \"wait\"".to_owned(),
        (Some(code), _) => format!(" without the code {code}"),
        (None, Some(after)) if !is_number(after) && httpdate::parse_http_date(after).is_err() => {
            return Some(format!("Retry-After is neither seconds nor a date: {after:?}"));
        }
        (None, None) if matches!(dialect.name, "acp" | "iceberg") => " without Retry-After".to_owned(),
        _ => return None,
    };
    Some(format!("a request in flight is refused{how}: {}", refused.summary()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each code and each `Retry-After` with each profile.
    #[test]
    fn a_refusal_in_flight_has_the_code_and_the_time_that_the_profile_asks_for() {
        let date = "Mon, 21 Oct 2030 07:28:00 GMT";
        let (of_stripe, of_acp) = ("idempotency_key_in_use", "idempotency_in_flight");
        let columns = Dialect::columns(["draft", "stripe", "acp", "iceberg"]);
        for (status, code, after, is_wrong) in [
            (409, "", None, [false, true, true, true]),
            (409, "", Some("1"), [false, true, true, true]),
            (409, of_stripe, None, [false, false, true, true]),
            (409, of_stripe, Some("1"), [false, false, true, true]),
            (409, of_stripe, Some("soon"), [true; 4]),
            (409, of_acp, None, [false, true, true, true]),
            (409, of_acp, Some("1"), [false, true, false, true]),
            (409, of_acp, Some(date), [false, true, false, true]),
            (409, of_acp, Some(""), [true; 4]),
            (409, of_acp, Some("-1"), [true; 4]),
            (503, "", None, [true; 4]),
            (503, "", Some("1"), [true, true, true, false]),
            (503, "", Some("soon"), [true; 4]),
        ] {
            let mut refused = Answer::of(status, code);
            if let Some(after) = after {
                refused.headers.insert("retry-after", after.parse().unwrap());
            }
            let found = columns.map(|dialect| wrong_in_flight(&dialect, &refused).is_some());
            assert_eq!(found, is_wrong, "{status} {code} {after:?}");
        }
    }
}
