//! Tools over MCP: a server without a fault keeps every check, each of six servers with one is found, and our layer
//! keeps what its profile promises.

mod server;

use tower_idempotency::server::Profile;
use tower_idempotency::{IdempotencyLayer, MemoryStore};
use tower_idempotency_check::{Outcome, Plan, Report, Severity};

use server::{Fault, Shape, routes};

async fn serve(app: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind((testkit::dice::loopback(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}/mcp")
}

async fn check(app: axum::Router, lines: &str) -> Report {
    let url = serve(app).await;
    let plan = format!(
        r#"
        url = "{url}"
        profile = "mcp"
        tool = "pay"
        data = '{{"amount":5,"to":{{"name":"a"}}}}'
        declined = '{{"amount":0}}'
        headers = ["Authorization: Bearer alice"]
        {lines}
        "#
    );
    Plan::from_toml(&plan).unwrap().run(|_| {}).await
}

fn skipped(report: &Report) -> Vec<&'static str> {
    let is_skipped = |outcome: &Outcome| matches!(outcome, Outcome::Skipped(_));
    report.checks.iter().filter(|check| is_skipped(&check.outcome)).map(|check| check.name).collect()
}

const COUNT: &str = "count = \"tool payments\"";
const SHAPES: [Shape; 4] = [
    Shape { has_sessions: true, streams: true },
    Shape { has_sessions: true, streams: false },
    Shape { has_sessions: false, streams: true },
    Shape { has_sessions: false, streams: false },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_fault_keeps_every_check_in_each_shape() {
    let checks = SHAPES.map(async |shape| {
        let report = check(routes(Fault::None, shape), COUNT).await;
        assert_eq!(report.exit_code(), 0, "{shape:?} {}", report.to_text());
        let skipped = skipped(&report);
        assert_eq!(skipped.contains(&"other-session"), !shape.has_sessions, "{shape:?} {skipped:?}");
        assert_eq!(skipped.contains(&"stream-cut"), !shape.streams, "{shape:?} {skipped:?}");
        for name in ["same-key-again", "at-once", "other-body", "other-id", "answer-swallowed", "declined"] {
            assert!(!skipped.contains(&name), "{shape:?} {skipped:?}");
        }
    });
    futures_util::future::join_all(checks).await;
}

// Each fault, with and without the count of payments.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_fault_is_found_by_the_check_that_is_meant_for_it() {
    let faults = [
        (Fault::IgnoresKeys, "same-key-again", Severity::Dangerous),
        (Fault::FirstId, "same-key-again", Severity::Wrong),
        (Fault::FirstId, "at-once", Severity::Wrong),
        (Fault::ComparesId, "other-id", Severity::Wrong),
        (Fault::AnyArguments, "other-body", Severity::Dangerous),
        (Fault::Race, "at-once", Severity::Dangerous),
        (Fault::PerSession, "other-session", Severity::Dangerous),
        (Fault::StopsWhenCut, "stream-cut", Severity::Dangerous),
    ];
    let checks = faults.iter().flat_map(|fault| [(fault, COUNT), (fault, "")]).map(async |(fault, count)| {
        let (fault, name, severity) = *fault;
        let report = check(routes(fault, SHAPES[0]), count).await;
        let text = report.to_text();
        let found = report.checks.iter().find(|check| check.name == name).unwrap();
        // What is paid before a stream is cut shows in no answer.
        let is_seen = !(count.is_empty() && fault == Fault::StopsWhenCut);
        assert_eq!(found.outcome == Outcome::Broken, is_seen, "{fault:?} {count:?} {text}");
        let worst = found.findings.iter().map(|finding| finding.severity).max();
        assert!(!is_seen || worst == Some(severity), "{fault:?} {count:?} {text}");
        assert!(!is_seen || report.exit_code() == 1, "{fault:?} {text}");
    });
    futures_util::future::join_all(checks).await;
}

// The server knows no keys, and stops a tool whose client has gone.
#[tokio::test(flavor = "multi_thread")]
async fn our_layer_keeps_every_check_of_a_tool() {
    let places = ["", "key_from = \"json:/params/arguments/idempotency_key\"", "key_header = \"Idempotency-Key\""];
    let more = "other_account = \"Authorization: Bearer bob\"\nslow = '{\"amount\":5,\"kind\":\"slow\"}'";
    let cases = SHAPES.iter().flat_map(|shape| places.iter().map(move |place| (*shape, *place)));
    let checks = cases.map(async |(shape, place)| {
        let layer = IdempotencyLayer::new(MemoryStore::new()).profile(Profile::mcp()).require_key(true);
        let app = routes(Fault::StopsWhenCut.without_keys(), shape).layer(layer);
        let report = check(app, &format!("{COUNT}\n{place}\n{more}")).await;
        assert_eq!(report.exit_code(), 0, "{shape:?} {place} {}", report.to_text());
    });
    futures_util::future::join_all(checks).await;
}

#[test]
fn a_plan_for_a_tool_names_it_and_its_arguments() {
    let of = |lines: &str| {
        let plan = Plan::from_toml(&format!("url = \"http://127.0.0.1:1/mcp\"\n{lines}"));
        plan.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let mcp = "profile = \"mcp\"\ntool = \"pay\"";
    let object = "is not a JSON object, the arguments of the tool";
    for (lines, said) in [
        ("profile = \"mcp\"".to_owned(), "tool: \"\" is not the name of a tool, which the profile mcp needs"),
        (format!("{mcp}\ndata = '5'"), object),
        (format!("{mcp}\nslow = '[1]'"), object),
        ("tool = \"pay\"".to_owned(), "tool: \"pay\" is not a field of this profile: add `mcp`"),
        (format!("{mcp}\nkey_from = \"header:Key\""), "is not a place in a call"),
        (format!("{mcp}\nkey_from = \"json:/params/arguments\""), "is not a place in a call"),
        (format!("{mcp}\nkey_from = \"json:/id\""), "is not a place in a call"),
        (format!("{mcp}\nkey_from = \"json:/params/name/x\""), "is not a place in a call"),
        (format!("{mcp}\nkey_from = \"json:/params/_meta/progressToken\""), "is not a place in a call"),
        (
            format!("{mcp}\nkey_from = \"json:/params/arguments/to/key\"\nslow = '{{\"to\":[]}}'"),
            "is not a body that has an object where `key_from` says",
        ),
        (
            format!("{mcp}\nkey_from = \"json:/params/key\"\nkey_header = \"key\""),
            "is not free to be given with `key_from`",
        ),
        (format!("{mcp}\ncount = \"tool \""), "is not a method and a path"),
        ("count = \"tool payments\"".to_owned(), "is not a method and a path"),
        (mcp.to_owned(), ""),
    ] {
        let error = of(&lines);
        assert!(error.contains(said) && error.is_empty() == said.is_empty(), "{lines}: {error}");
    }
}
