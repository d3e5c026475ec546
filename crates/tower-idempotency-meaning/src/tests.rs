use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::{Answer, BodyJudge, Rule, Says};

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

fn said_of(judge: &BodyJudge, status: u16, kind: &'static str, body: &str) -> Option<Says> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
    judge.judge(&Answer::new(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes()))
}

fn said(judge: &BodyJudge, body: &str) -> Option<Says> {
    said_of(judge, 200, "application/json", body)
}

#[test]
fn the_codes_of_json_rpc_say_what_the_specification_says_of_them() {
    let judge = BodyJudge::json_rpc();
    for (code, says) in [
        (-32768, Says::Refused),
        (-32701, Says::Refused),
        (-32700, Says::NotStarted),
        (-32699, Says::Refused),
        (-32604, Says::Refused),
        (-32603, Says::Failed),
        (-32602, Says::NotStarted),
        (-32601, Says::NotStarted),
        (-32600, Says::NotStarted),
        (-32599, Says::Refused),
        (-32100, Says::Refused),
        (-32099, Says::Failed),
        (-32000, Says::Failed),
        (-31999, Says::Refused),
        (0, Says::Refused),
        (32600, Says::Refused),
    ] {
        for (id, status) in [("1", 200), ("\"a\"", 400), ("null", 500)] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no"}}}}"#);
            assert_eq!(said_of(&judge, status, "application/json", &body), Some(says), "{body}");
            // Some servers write both.
            let body = body.replace("\"error\"", "\"result\":null,\"error\"");
            assert_eq!(said(&judge, &body), Some(says), "{body}");
        }
    }
}

#[test]
fn a_result_is_an_outcome_also_one_that_is_an_error_of_a_tool() {
    let judge = BodyJudge::json_rpc();
    for result in ["{}", "null", "0", r#"{"isError":true}"#] {
        for error in ["", r#","error":null"#] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}{error}}}"#);
            assert_eq!(said(&judge, &body), Some(Says::Done), "{body}");
            // Its status says more.
            assert_eq!(said_of(&judge, 500, "application/json", &body), None, "{body}");
        }
    }
}

#[test]
fn what_is_no_response_of_json_rpc_says_nothing() {
    let response = r#"{"jsonrpc":"2.0","id":1,"result":7}"#;
    assert_eq!(said(&BodyJudge::json_rpc(), response), Some(Says::Done));
    for body in [
        "",
        "7",
        "null",
        r#"{"jsonrpc":"2.0","id":1,"result":7"#,
        &format!("[{response}]"),
        r#"{"jsonrpc":"1.0","id":1,"result":7}"#,
        r#"{"id":1,"result":7}"#,
        r#"{"jsonrpc":"2.0","result":7}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":7,"error":{"code":-32603}}"#,
        r#"{"errors":[{"extensions":{"code":"THROTTLED"}}]}"#,
    ] {
        assert_eq!(said(&BodyJudge::json_rpc(), body), None, "{body}");
    }
}

#[test]
fn an_error_of_json_rpc_without_a_number_is_unknown() {
    for error in [r#""busy""#, "7", r#"{"message":"no"}"#, r#"{"code":"-32603"}"#, r#"{"code":1.5}"#, "[]"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{error}}}"#);
        assert_eq!(said(&BodyJudge::json_rpc(), &body), Some(Says::Unknown), "{body}");
    }
}

// A time limit outside a handler answers 408 after the effect.
#[test]
fn an_error_without_an_id_is_not_started_only_under_a_status_of_what_was_not_read() {
    let judge = BodyJudge::json_rpc();
    let body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000}}"#;
    for status in [400, 404, 405, 406, 413, 415, 422] {
        assert_eq!(said_of(&judge, status, "application/json", body), Some(Says::NotStarted), "{status}");
    }
    for status in [200, 408, 409, 499, 500, 503] {
        assert_eq!(said_of(&judge, status, "application/json", body), Some(Says::Failed), "{status}");
    }
}

fn errors(errors: &str, rest: &str) -> String {
    format!(r#"{{"errors":[{errors}]{rest}}}"#)
}

fn error(code: &str) -> String {
    format!(r#"{{"message":"no","extensions":{{"code":"{code}"}}}}"#)
}

#[test]
fn what_was_executed_in_part_is_an_outcome() {
    for rest in [r#","data":{"pay":null}"#, r#","data":{}"#] {
        assert_eq!(said(&BodyJudge::graphql(), &errors(&error("THROTTLED"), rest)), Some(Says::Done), "{rest}");
    }
    assert_eq!(said(&BodyJudge::graphql(), r#"{"data":{"pay":{"id":7}}}"#), Some(Says::Done));
}

#[test]
fn all_errors_together_say_whether_anything_was_started() {
    let [busy, early, token, odd] = ["THROTTLED", "FORBIDDEN", "UNAUTHENTICATED", "INTERNAL_SERVER_ERROR"].map(error);
    for (all, says) in [
        (vec![&busy], Says::TryLater(None)),
        (vec![&busy, &busy], Says::TryLater(None)),
        (vec![&early], Says::NotStarted),
        (vec![&busy, &early], Says::NotStarted),
        (vec![&token], Says::Unauthenticated),
        (vec![&token, &token], Says::Unauthenticated),
        (vec![&token, &early], Says::NotStarted),
        (vec![&busy, &token], Says::NotStarted),
        (vec![&odd], Says::Unknown),
        (vec![&early, &odd], Says::Unknown),
        (vec![&odd, &busy], Says::Unknown),
        (vec![&token, &odd], Says::Unknown),
    ] {
        let all: Vec<_> = all.into_iter().map(String::as_str).collect();
        for rest in ["", r#","data":null"#] {
            let body = errors(&all.join(","), rest);
            assert_eq!(said(&BodyJudge::graphql(), &body), Some(says), "{body}");
        }
    }
    for code in ["7", "null", "{}"] {
        let body = errors(&format!(r#"{{"message":"no","extensions":{{"code":{code}}}}}"#), "");
        assert_eq!(said(&BodyJudge::graphql(), &body), Some(Says::Unknown), "{body}");
    }
}

// A field's own selection is executed after the mutation.
#[test]
fn an_error_below_a_field_is_unknown_whatever_its_code() {
    for (path, is_below) in [(r#"["pay"]"#, false), (r#"["pay","receipt"]"#, true), (r#"["pay",0]"#, true)] {
        for (code, says) in [("THROTTLED", Says::TryLater(None)), ("FORBIDDEN", Says::NotStarted)] {
            let body = format!(r#"{{"path":{path},"extensions":{{"code":"{code}"}}}}"#);
            let found = said(&BodyJudge::graphql(), &errors(&body, r#","data":null"#));
            assert_eq!(found, Some(if is_below { Says::Unknown } else { says }), "{body}");
        }
    }
}

#[test]
fn what_is_no_answer_of_graphql_says_nothing() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{"data":null}"#,
        r#"{"errors":[]}"#,
        r#"{"errors":[],"data":null}"#,
        r#"{"data":[]}"#,
        r#"{"errors":{},"data":{}}"#,
        r#"{"type":"about:blank","title":"no","retry_with_same_key":true}"#,
    ] {
        assert_eq!(said(&BodyJudge::graphql(), body), None, "{body}");
    }
}

#[test]
fn points_that_are_missing_say_when_they_are_back() {
    for (needed, left, rate, seconds) in [
        ("1001", "1.0", "100.0", Some(10)),
        ("1002", "1", "100", Some(11)),
        ("5", "7", "100", Some(0)),
        ("5", "1", "0", None),
        ("5", "1", "-1", None),
        ("5", "1", "\"1\"", None),
        ("null", "1", "1", None),
        ("1e300", "1", "1", None),
    ] {
        let cost = format!(
            r#","extensions":{{"cost":{{"requestedQueryCost":{needed},"throttleStatus":
            {{"maximumAvailable":1000.0,"currentlyAvailable":{left},"restoreRate":{rate}}}}}}}"#
        );
        let found = said(&BodyJudge::graphql(), &errors(&error("THROTTLED"), &cost));
        assert_eq!(found, Some(Says::TryLater(seconds.map(Duration::from_secs))), "{cost}");
    }
}

#[test]
fn the_type_says_what_is_json() {
    let body = errors(&error("THROTTLED"), "");
    for (kind, is_json) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/graphql-response+json", true),
        ("application/problem+json", true),
        ("text/json", false),
        ("text/event-stream", false),
        ("application/jsonl", false),
        ("application/json-seq", false),
        ("text/plain; application/json", false),
        ("", false),
    ] {
        assert_eq!(said_of(&BodyJudge::graphql(), 200, kind, &body).is_some(), is_json, "{kind}");
    }
    let two = headers(&[("content-type", "application/json"), ("content-type", "application/json")]);
    assert_eq!(BodyJudge::graphql().judge(&Answer::new(StatusCode::OK, &two, body.as_bytes())), None);
}

#[test]
fn the_status_of_grpc_is_in_the_trailers_or_else_in_the_head() {
    let says = |status: u16, lines: &[_], trailers: Option<&[_]>| {
        let (head, trailers) = (headers(lines), trailers.map(headers));
        let answer = Answer::new(StatusCode::from_u16(status).unwrap(), &head, b"").with_trailers(trailers.as_ref());
        BodyJudge::grpc().judge(&answer)
    };
    let kind = ("content-type", "application/grpc+proto");
    let (done, lost) = (("grpc-status", "0"), ("grpc-status", "2"));
    for (status, head, trailers, said) in [
        (200, vec![kind], Some(vec![done]), Some(Says::Done)),
        (200, vec![kind, done], None, Some(Says::Done)),
        (200, vec![kind, done], Some(vec![lost]), Some(Says::Unknown)),
        (200, vec![kind, lost], Some(vec![done]), Some(Says::Done)),
        (200, vec![kind, lost], Some(vec![]), Some(Says::Unknown)),
        // Of two, neither counts.
        (200, vec![kind], Some(vec![done, done]), Some(Says::Unknown)),
        // It broke off.
        (200, vec![kind], None, Some(Says::Unknown)),
        (503, vec![kind], None, None),
        (503, vec![kind, done], None, None),
        (503, vec![kind, ("grpc-status", "16")], None, Some(Says::Unauthenticated)),
        // Another protocol, or two types.
        (200, vec![("content-type", "application/grpc-web"), lost], None, None),
        (200, vec![("content-type", "application/json"), lost], None, None),
        (200, vec![kind, kind, lost], None, None),
        (200, vec![lost], None, None),
    ] {
        assert_eq!(says(status, &head, trailers.as_deref()), said, "{status} {head:?} {trailers:?}");
    }
    for (code, said) in [
        ("", Says::Unknown),
        ("00", Says::Unknown),
        ("14 ", Says::Failed),
        ("17", Says::Unknown),
        ("x", Says::Unknown),
        ("12", Says::Refused),
        ("13", Says::Failed),
        ("15", Says::Failed),
    ] {
        // A field's value has no blanks at its ends.
        let code = code.trim();
        assert_eq!(says(200, &[kind], Some(&[("grpc-status", code)])), Some(said), "{code:?}");
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let judge = BodyJudge::rules([
        Rule::new("/errors/*/code", ["BUSY", "LOCKED"], Says::TryLater(None)).unwrap(),
        Rule::new("/errors/0/code", ["BUSY"], Says::Unknown).unwrap(),
        Rule::new("/a~1b/~0/~01", [true], Says::NotStarted).unwrap(),
        Rule::new("/by/*/is", [7], Says::Failed).unwrap(),
        Rule::new("/fault", [] as [bool; 0], Says::Refused).unwrap(),
        Rule::new("/ok", [true], Says::Done).unwrap(),
    ]);
    for (body, says) in [
        (r#"{"errors":[{"code":"A"},{"code":"LOCKED"}]}"#, Some(Says::TryLater(None))),
        (r#"{"errors":[{"code":"BUSY"}]}"#, Some(Says::TryLater(None))),
        (r#"{"errors":[{"code":"busy"}]}"#, None),
        (r#"{"errors":{"x":{"code":"BUSY"}}}"#, Some(Says::TryLater(None))),
        (r#"{"a/b":{"~":{"~1":true}}}"#, Some(Says::NotStarted)),
        (r#"{"a/b":{"~":{"/":true}}}"#, None),
        (r#"{"by":{"x":{"is":6},"y":{"is":7}}}"#, Some(Says::Failed)),
        (r#"{"fault":null}"#, None),
        (r#"{"fault":""}"#, Some(Says::Refused)),
        (r#"{"fault":false,"ok":true}"#, Some(Says::Refused)),
        (r#"{"ok":true}"#, Some(Says::Done)),
        (r#"[{"code":"BUSY"}]"#, None),
        ("BUSY", None),
    ] {
        assert_eq!(said(&judge, body), says, "{body}");
    }
    assert_eq!(said_of(&judge, 404, "application/json", r#"{"ok":true}"#), None);
    let by_index = BodyJudge::rules([Rule::new("/1", ["x"], Says::Refused).unwrap()]);
    for (body, fits) in [(r#"["a","x"]"#, true), (r#"["x"]"#, false), (r#"{"1":"x"}"#, true)] {
        assert_eq!(said(&by_index, body).is_some(), fits, "{body}");
    }
    let padded = BodyJudge::rules([Rule::new("/01", ["x"], Says::Refused).unwrap()]);
    assert_eq!(said(&padded, r#"["a","x"]"#), None);
    for wrong in ["", "errors", "/a~", "/a~2b", "#/a"] {
        assert!(Rule::new(wrong, [1], Says::Done).unwrap_err().to_string().contains(wrong), "{wrong}");
    }
}

#[test]
fn a_function_sees_the_whole_answer_and_calls_no_failure_a_success() {
    let judge = BodyJudge::function(|answer| (answer.body == b"fine").then_some(Says::Done));
    assert_eq!(said_of(&judge, 200, "text/plain", "fine"), Some(Says::Done));
    assert_eq!(said_of(&judge, 200, "text/plain", "bad"), None);
    assert_eq!(said_of(&judge, 500, "text/plain", "fine"), None);
}

#[test]
fn a_judge_is_read_from_its_name() {
    for name in ["json-rpc", "graphql", "grpc"] {
        assert_eq!(format!("{:?}", name.parse::<BodyJudge>().unwrap()), name);
    }
    for name in ["", "jsonrpc", "GraphQL"] {
        let error = name.parse::<BodyJudge>().unwrap_err().to_string();
        assert!(error.contains(&format!("{name:?} is none of the judges")), "{error}");
    }
}
