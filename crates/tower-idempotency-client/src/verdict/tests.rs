use super::*;

fn verdict(status: u16, lines: &[(&'static str, &'static str)], body: &str, is_earlier_unknown: bool) -> Verdict {
    let line = |(name, value): &(&'static str, &'static str)| (name.parse().unwrap(), value.parse().unwrap());
    let headers = lines.iter().map(line).collect();
    let before = Earlier { is_unknown: is_earlier_unknown, is_own: false };
    judge(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), None, before)
}

fn problem(status: u16, name: &str, again: bool, lines: &[(&'static str, &'static str)]) -> Verdict {
    let lines = [&[("content-type", "application/problem+json")], lines].concat();
    let body = format!(r#"{{"type":"https://example.com/problem/#{name}","retry_with_same_key":{again}}}"#);
    verdict(status, &lines, &body, false)
}

fn json(status: u16, body: &str) -> Verdict {
    verdict(status, &[("content-type", "application/json")], body, false)
}

const AFTER: (&str, &str) = ("retry-after", "1");
const ONE: Option<Duration> = Some(Duration::from_secs(1));

#[test]
fn a_problem_says_what_is_known() {
    assert_eq!(problem(408, "body-incomplete", true, &[]), Verdict::Again(Known::Refused, None));
    for name in ["key-missing", "key-malformed", "body-too-large"] {
        assert_eq!(problem(400, name, false, &[]), Verdict::Rejected(Known::Refused), "{name}");
    }
    for name in ["overloaded", "shutting-down", "store-unavailable"] {
        assert_eq!(problem(503, name, true, &[AFTER]), Verdict::Again(Known::Refused, ONE), "{name}");
    }
    assert_eq!(problem(503, "store-full", true, &[]), Verdict::Again(Known::Refused, None));
    assert_eq!(problem(503, "store-unavailable", false, &[]), Verdict::Rejected(Known::Unknown));
    assert_eq!(problem(409, "in-flight", true, &[AFTER]), Verdict::Again(Known::Unknown, ONE));
    assert_eq!(problem(409, "outcome-unknown", false, &[]), Verdict::Rejected(Known::Unknown));
    assert_eq!(problem(503, "outcome-unknown", true, &[]), Verdict::Again(Known::Unknown, None));
    for name in ["credentials-changed", "key-reused"] {
        assert_eq!(problem(422, name, false, &[]), Verdict::Rejected(Known::Unknown), "{name}");
    }
    assert_eq!(problem(409, "not-replayable", false, &[]), Verdict::Ended(Known::Unknown));
}

#[test]
fn a_problem_that_says_less_than_its_status_is_read_by_its_status() {
    for name in ["custom", "of-a-later-release", ""] {
        for (status, known) in [
            (400, Known::Refused),
            (401, Known::Refused),
            (403, Known::Refused),
            (408, Known::Unknown),
            (409, Known::Unknown),
            (429, Known::Refused),
            (500, Known::Unknown),
            (502, Known::Unknown),
            (503, Known::Unknown),
        ] {
            assert_eq!(problem(status, name, false, &[AFTER]), Verdict::Rejected(known), "{name} {status}");
            assert_eq!(problem(status, name, true, &[AFTER]), Verdict::Again(known, ONE), "{name} {status}");
        }
    }
}

#[test]
fn an_answer_that_was_not_kept_ends_the_operation_as_its_status_says() {
    let of = |body: String| verdict(409, &[("content-type", "application/problem+json")], &body, false);
    for (original, known) in
        [(200, Known::Done), (204, Known::Done), (402, Known::Refused), (303, Known::Unknown), (500, Known::Unknown)]
    {
        let problem =
            format!(r#"{{"type":"x#not-replayable","retry_with_same_key":false,"original_status":{original}}}"#);
        assert_eq!(of(problem), Verdict::Ended(known), "{original}");
    }
}

#[test]
fn what_the_server_says_of_the_effect_comes_before_everything_else() {
    let of = |status, value| verdict(status, &[("idempotency-effect", value), AFTER], "", false);
    for (value, known) in [("none", Known::Refused), ("pending", Known::Unknown), ("unknown", Known::Unknown)] {
        for status in [200, 400, 409, 500, 502, 503] {
            // A success can't say that nothing was done.
            let known = if status == 200 { Known::Unknown } else { known };
            assert_eq!(of(status, format!("{value};retry").leak()), Verdict::Again(known, ONE), "{value} {status}");
            assert_eq!(of(status, format!("{value}; retry=?1").leak()), Verdict::Again(known, ONE), "{value} {status}");
            assert_eq!(of(status, format!("{value};retry=?0").leak()), Verdict::Rejected(known), "{value} {status}");
        }
        assert_eq!(of(422, format!("{value};retry").leak()), Verdict::Rejected(known), "{value}");
        // Without the parameter, the status says whether a retry is of use; a success is none.
        assert_eq!(of(503, value), Verdict::Again(known, ONE), "{value}");
        assert_eq!(of(500, value), Verdict::Answer(known), "{value}");
        assert_eq!(of(200, value), Verdict::Rejected(Known::Unknown), "{value}");
        // But for gRPC's, which are refusals by their trailers.
        let of_grpc =
            verdict(200, &[("idempotency-effect", value), ("content-type", "application/grpc+proto")], "", false);
        assert_eq!(of_grpc, Verdict::Rejected(known), "{value}");
    }
    for status in [409, 200, 503] {
        assert_eq!(of(status, "done;status=402;retry=?0"), Verdict::Ended(Known::Refused));
        assert_eq!(of(status, "done;status=201;retry=?0"), Verdict::Ended(Known::Done));
        assert_eq!(of(status, "done;status=500"), Verdict::Ended(Known::Unknown));
        assert_eq!(of(status, "done"), Verdict::Ended(Known::Unknown));
    }
    // A parameter of a later release says nothing.
    assert_eq!(of(400, "none;since=4;retry=?0;why"), Verdict::Rejected(Known::Refused));
}

// Seeded faults: what can't be read is left out of account; what a gateway has joined is a parameter's value.
#[test]
fn an_effect_that_is_malformed_joined_with_another_or_of_a_later_release_is_unknown() {
    for value in [
        "maybe", "none ;retry", "None", "NONE;retry", "none,unknown", "none;retry, unknown;retry=?0",
        "none;retry=?0, none", "none;;", "none;=x", "none;retry=1", "none;retry=?2", "none;Retry", "none;a=b, c",
        "\"none\"", "", "done;status=x", "done;status", "done;status=-1", "done;status=200, done;status=402",
    ] {
        let lines = [("idempotency-effect", value)];
        for status in [400, 403, 422] {
            assert_eq!(verdict(status, &lines, "", false), Verdict::Answer(Known::Unknown), "{value} {status}");
        }
        assert_eq!(verdict(503, &lines, "", false), Verdict::Again(Known::Unknown, None), "{value}");
        // Of a success, it says nothing.
        let headers: HeaderMap = [(EFFECT, HeaderValue::from_static(value))].into_iter().collect();
        assert!(is_plain_success(StatusCode::OK, &headers, None), "{value}");
        assert_eq!(known_of_replay(StatusCode::PAYMENT_REQUIRED, &headers, None), Known::Unknown, "{value}");
    }
    let two = |one, other| [("idempotency-effect", one), ("idempotency-effect", other)];
    for lines in [two("none", "unknown"), two("none", "none")] {
        let headers = lines.iter().map(|(_, value)| HeaderValue::from_static(value));
        let mut map = HeaderMap::new();
        headers.for_each(|value| _ = map.append(EFFECT, value));
        let judged = judge(StatusCode::FORBIDDEN, &map, b"", None, Earlier::default());
        assert_eq!(judged, Verdict::Answer(Known::Unknown), "{lines:?}");
    }
}

// Seeded fault: the status of the refusal is taken for the operation's.
#[test]
fn a_refused_replay_whose_header_was_lost_is_no_refusal_of_the_operation() {
    let lines = [("content-type", "application/problem+json")];
    for (original, again, expected) in [
        (200, false, Verdict::Ended(Known::Done)),
        (402, false, Verdict::Ended(Known::Refused)),
        (502, false, Verdict::Ended(Known::Unknown)),
        (200, true, Verdict::Again(Known::Unknown, None)),
    ] {
        let body = format!(
            r#"{{"type":"https://example.com/problem/#custom","retry_with_same_key":{again},"original_status":{original}}}"#
        );
        assert_eq!(verdict(403, &lines, &body, false), expected, "{original} {again}");
    }
}

// Seeded fault: a name that is not on the list leaves it to the status.
#[test]
fn a_refusal_that_names_idempotency_leaves_a_key_of_the_caller_s_own_unknown() {
    let of = |status, body: &str, is_own| {
        let lines = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect();
        judge(
            StatusCode::from_u16(status).unwrap(),
            &lines,
            body.as_bytes(),
            None,
            Earlier { is_unknown: false, is_own },
        )
    };
    for body in [
        r#"{"type":"https://developer.example.com/idempotency","title":"Idempotency-Key is already used"}"#,
        r#"{"code":"IDEMPOTENCY_KEY_REUSED"}"#,
        r#"{"error":{"code":"IdempotentParameterMismatch"}}"#,
    ] {
        for status in [400, 422] {
            assert_eq!(of(status, body, true), Verdict::Rejected(Known::Unknown), "{status} {body}");
            assert_eq!(of(status, body, false), Verdict::Answer(Known::Refused), "{status} {body}");
        }
    }
    assert_eq!(of(400, r#"{"code":"amount_missing"}"#, true), Verdict::Answer(Known::Refused));
    // A server's error is tried again, whatever it names. Seeded fault: it is given up.
    let fault = r#"{"code":"IDEMPOTENCY_STORE_AWAY"}"#;
    assert_eq!(of(503, fault, true), Verdict::Again(Known::Unknown, None));
    assert_eq!(of(500, fault, true), Verdict::Answer(Known::Unknown));
}

#[test]
fn a_422_is_never_retried() {
    assert_eq!(problem(422, "key-reused", true, &[AFTER]), Verdict::Rejected(Known::Unknown));
    assert_eq!(problem(422, "body-too-large", true, &[AFTER]), Verdict::Rejected(Known::Refused));
    assert_eq!(verdict(422, &[("x-should-retry", "true"), AFTER], "", true), Verdict::Answer(Known::Refused));
    assert_eq!(verdict(422, &[], "", true), Verdict::Answer(Known::Refused));
}

#[test]
fn the_statuses_of_refusals_are_retried() {
    for status in [421, 425, 429] {
        assert_eq!(verdict(status, &[AFTER], "", false), Verdict::Again(Known::Refused, ONE), "{status}");
    }
    // A 408 may come from a layer that has ended a handler which was running.
    for status in [408, 502, 503, 504] {
        assert_eq!(verdict(status, &[], "", false), Verdict::Again(Known::Unknown, None), "{status}");
    }
    for status in [307, 308, 400, 401, 402, 403, 404, 410, 431, 451, 511] {
        assert_eq!(verdict(status, &[AFTER], "", true), Verdict::Answer(Known::Refused), "{status}");
    }
    // A status that is not registered says nothing.
    for status in [302, 303, 418, 419, 499, 500, 501, 507] {
        assert_eq!(verdict(status, &[AFTER], "", true), Verdict::Answer(Known::Unknown), "{status}");
    }
}

#[test]
fn a_server_may_say_whether_to_retry() {
    for (status, name) in (300..600).flat_map(|status| SHOULD_RETRY.map(|name| (status, name))) {
        let known = known_of_status(StatusCode::from_u16(status).unwrap());
        let says = |value, is_lost| verdict(status, &[(name, value), AFTER], "", is_lost);
        for is_lost in [false, true] {
            let again = if status == 422 { Verdict::Answer(known) } else { Verdict::Again(known, ONE) };
            assert_eq!(says("true", is_lost), again, "{name} {status}");
            // Without it, these are sent again. It is the last word, and no answer of the operation.
            let last = match status {
                408 | 409 | 421 | 425 | 429 | 502..=504 => Verdict::Rejected(known),
                _ => Verdict::Answer(known),
            };
            assert_eq!(says("false", is_lost), last, "{name} {status}");
        }
        assert_eq!(says("maybe", false), verdict(status, &[AFTER], "", false), "{name} {status}");
    }
    let both = [("stripe-should-retry", "maybe"), ("x-should-retry", "false")];
    assert_eq!(verdict(503, &both, "", false), Verdict::Rejected(Known::Unknown));
    // A rejection of ours comes first.
    assert_eq!(problem(503, "overloaded", true, &[("x-should-retry", "false")]), Verdict::Again(Known::Refused, None));
    assert_eq!(problem(503, "custom", false, &[("x-should-retry", "true")]), Verdict::Rejected(Known::Unknown));
}

#[test]
fn a_conflict_is_retried_where_an_attempt_may_still_run() {
    for (is_unknown, is_own) in [(false, false), (false, true), (true, false), (true, true)] {
        let conflict = |lines: &[_]| {
            let lines = lines.iter().cloned().collect();
            judge(StatusCode::CONFLICT, &lines, b"", None, Earlier { is_unknown, is_own })
        };
        let alone = match (is_unknown, is_own) {
            (true, _) => Verdict::Again(Known::Unknown, None),
            (false, true) => Verdict::Answer(Known::Unknown),
            (false, false) => Verdict::Answer(Known::Refused),
        };
        assert_eq!(conflict(&[]), alone, "lost: {is_unknown}, the caller's key: {is_own}");
        let later = conflict(&[(http::header::RETRY_AFTER, HeaderValue::from_static("1"))]);
        assert_eq!(later, Verdict::Again(Known::Unknown, ONE), "lost: {is_unknown}, the caller's key: {is_own}");
    }
    let stripe = r#"{"error":{"type":"invalid_request_error","code":"idempotency_key_in_use"}}"#;
    assert_eq!(json(409, stripe), Verdict::Again(Known::Unknown, None));
    // Each member is read for itself.
    let odd = r#"{"type":7,"code":"idempotency_key_in_use","error":"Conflict"}"#;
    assert_eq!(json(409, odd), Verdict::Again(Known::Unknown, None));
    let of_keys = r#"{"error":{"type":"idempotency_error","code":409}}"#;
    assert_eq!(json(409, of_keys), Verdict::Again(Known::Unknown, None));
    let draft = r#"{"type":"https://developer.example.com/idempotency","title":"A request is outstanding"}"#;
    let lines = [("content-type", "Application/Problem+JSON")];
    assert_eq!(verdict(409, &lines, draft, false), Verdict::Again(Known::Unknown, None));
    assert_eq!(verdict(400, &lines, draft, false), Verdict::Answer(Known::Refused));
    let acp = r#"{"type":"invalid_request","code":"idempotency_in_flight","message":"wait"}"#;
    assert_eq!(json(409, acp), Verdict::Again(Known::Unknown, None));
}

#[test]
fn a_key_of_another_request_is_refused_in_each_dialect() {
    let stripe = r#"{"error":{"type":"idempotency_error","message":"Keys can only be used with the same parameters"}}"#;
    assert_eq!(json(400, stripe), Verdict::Rejected(Known::Unknown));
    let acp = r#"{"type":"invalid_request","code":"idempotency_conflict","message":"other body"}"#;
    assert_eq!(json(422, acp), Verdict::Rejected(Known::Unknown));
    for kind in ["IdempotencyKeyReusedException", "IdempotencyCredentialsChangedException"] {
        let iceberg = format!(r#"{{"error":{{"message":"no","type":"{kind}","code":422}}}}"#);
        assert_eq!(json(422, &iceberg), Verdict::Rejected(Known::Unknown), "{kind}");
    }
}

#[test]
fn the_layer_s_own_codes_are_known_in_the_flat_envelope() {
    let flat = |code| format!(r#"{{"type":"invalid_request","code":"{code}","message":"no"}}"#);
    for (code, last) in [
        ("outcome_unknown", Verdict::Rejected(Known::Unknown)),
        ("not_verifiable", Verdict::Rejected(Known::Unknown)),
        ("credentials_changed", Verdict::Rejected(Known::Unknown)),
        ("not_replayable", Verdict::Ended(Known::Unknown)),
    ] {
        let says = |status, lines: &[_]| {
            verdict(status, &[&[("content-type", "application/json")], lines].concat(), &flat(code), false)
        };
        for status in [409, 422, 500] {
            assert_eq!(says(status, &[]), last, "{code} {status}");
        }
        // A retry is of use: the status says what else there is to say.
        for (status, lines, after) in [(409, &[AFTER][..], ONE), (503, &[], None), (503, &[AFTER], ONE)] {
            assert_eq!(says(status, lines), Verdict::Again(Known::Unknown, after), "{code} {status} {after:?}");
        }
    }
}

#[test]
fn what_is_no_rejection_is_an_answer() {
    for body in ["", "{", "[]", "null", r#"{"type":7}"#, r#"{"error":"text"}"#, r#"{"retry_with_same_key":"yes"}"#] {
        assert_eq!(json(400, body), Verdict::Answer(Known::Refused), "{body}");
    }
    // Only what calls itself JSON is read.
    assert_eq!(
        verdict(400, &[("content-type", "text/plain")], r#"{"retry_with_same_key":true}"#, false),
        Verdict::Answer(Known::Refused)
    );
}
