//! `idem check`: its exit codes, its limits and its reports.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tempfile::tempdir;
use tower_idempotency::{IdempotencyLayer, SledStore};

use crate::program::{Said, idem};

type Charges = Arc<Mutex<Vec<usize>>>;

/// Starts a server whose charges have keys, or have none.
async fn start(layer: Option<IdempotencyLayer<SledStore>>) -> (SocketAddr, Charges) {
    async fn charge(State(charges): State<Charges>) -> (StatusCode, String) {
        let mut charges = charges.lock().unwrap();
        let id = charges.len();
        charges.push(id);
        (StatusCode::CREATED, format!("<{id}>"))
    }
    async fn list(State(charges): State<Charges>) -> String {
        serde_json::to_string(&*charges.lock().unwrap()).unwrap()
    }
    let charges = Charges::default();
    let app = Router::new().route("/charges", post(charge).get(list));
    let app = match layer {
        Some(layer) => app.layer(layer),
        None => app,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, state) = (listener.local_addr().unwrap(), Arc::clone(&charges));
    tokio::spawn(async move { axum::serve(listener, app.with_state(state)).await.unwrap() });
    (address, charges)
}

async fn check(arguments: &[&str]) -> Said {
    let arguments: Vec<_> = ["check"].into_iter().chain(arguments.iter().copied()).map(str::to_owned).collect();
    let run = move || idem(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_the_layer_is_kept_and_one_without_is_broken() {
    let directory = tempdir().unwrap();
    let layer = IdempotencyLayer::new(SledStore::open(directory.path().join("store")).unwrap());
    let (kept, _) = start(Some(layer)).await;
    let (broken, _) = start(None).await;
    let only = ["--data", "amount=5", "--count", "GET /charges", "--only", "same-key-again", "--only", "at-once"];

    let said = check(&[&[format!("http://{kept}/charges").as_str()], &only[..]].concat()).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.last_line().contains("3 kept, 0 broken"), "{said:?}");
    assert_eq!(said.stdout.lines().filter(|line| *line == "POST /charges").count(), 1, "{said:?}");

    let said = check(&[&[format!("http://{broken}/charges").as_str()], &only[..]].concat()).await;
    assert_eq!(said.code, 1, "{said:?}");
    for what in [
        "BROKEN",
        "DANGEROUS: three requests with one key have 3 effects",
        "DANGEROUS: 100 copies at once have 101 effects",
        "curl -i -X POST",
        "draft-ietf-httpapi-idempotency-key-header",
    ] {
        assert!(said.stdout.contains(what), "{what}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_text_json_junit_and_html_and_none_lets_a_server_write_markup() {
    let directory = tempdir().unwrap();
    let (address, _) = start(None).await;
    let plan = directory.path().join("plan.toml");
    let (junit, html) = (directory.path().join("junit.xml"), directory.path().join("report.html"));
    let text = format!("url = \"http://{address}/charges\"\ndata = \"amount=5\"\nonly = [\"same-key-again\"]\n");
    std::fs::write(&plan, text).unwrap();
    let [plan, junit, html] = [&plan, &junit, &html].map(|path| path.to_str().unwrap());
    let said = check(&["--plan", plan, "--json", "--junit", junit, "--html", html]).await;
    assert_eq!(said.code, 1, "{said:?}");
    let checks = &said.json()["checks"];
    assert_eq!(checks[1]["name"], "same-key-again");
    assert_eq!(checks[1]["outcome"]["kind"], "broken");
    assert_eq!(checks[1]["findings"][0]["severity"], "dangerous");
    assert!(checks[1]["timeline"][0]["sent"].as_str().unwrap().starts_with("curl -i -X POST 'http://127.0.0.1:"));
    for file in [junit, html] {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains("&lt;8&gt;") && !text.contains("<8>"), "{text}");
    }
    let full = check(&["--plan", plan, "--junit", "/dev/full"]).await;
    assert!(full.code == 3 && full.stderr.contains("/dev/full"), "{full:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_another_machine_without_yes_and_never_more_than_was_said() {
    // An address that is kept for documents (RFC 5737), so that it would take long to be refused.
    let said = check(&["http://192.0.2.1/charges"]).await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("--yes"), "{said:?}");

    let (address, charges) = start(None).await;
    let url = format!("http://{address}/charges");
    let said =
        check(&[&url, "--data", "a=1", "--max-requests", "4", "--profile", "stripe", "--only", "same-key-again"]).await;
    assert!(said.last_line().ends_with("4 requests"), "{said:?}");
    assert_eq!(charges.lock().unwrap().len(), 4);
    let said =
        check(&[&url, "--data", "a=1", "--max-requests", "50", "--profile", "stripe", "--only", "at-once"]).await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stdout.contains("--max-requests permits more"), "{said:?}");
    assert_eq!(charges.lock().unwrap().len(), 8, "a hundred copies don't fit, so none is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_t_be_checked_has_its_own_exit_code() {
    let free = testkit::dice::free_address();
    let said = check(&[&format!("http://{free}/charges"), "--data", "a=1"]).await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stdout.contains("there is no connection"), "{said:?}");
    for (arguments, wrong) in [
        (&[][..], "give a url"),
        (&["ftp://127.0.0.1/"], "http://127.0.0.1:8080/charges"),
        (&["http://127.0.0.1/", "--profile", "strip"], "draft, stripe, acp, iceberg or mcp"),
        (&["http://127.0.0.1/", "--only", "at-onec"], "the name of a check"),
        (&["http://127.0.0.1/", "--count", "/charges"], "GET /charges"),
        (&["http://127.0.0.1/", "--data", "@no-such-file"], "no-such-file"),
    ] {
        let said = check(arguments).await;
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains(wrong), "{wrong}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_in_no_report() {
    let (address, _) = start(None).await;
    let url = format!("http://{address}/charges");
    let said = check(&[&url, "--data", "a=1", "-H", "Authorization: Bearer s3cr3t", "--only", "same-key-again"]).await;
    assert!(said.stdout.contains("authorization: ***"), "{said:?}");
    assert!(!said.all().contains("s3cr3t"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_comes_before_a_plan_and_its_endpoints() {
    let directory = tempdir().unwrap();
    let (address, _) = start(None).await;
    let plan = directory.path().join("plan.toml");
    let text = format!(
        "url = \"http://{address}/charges\"\nheaders = [\"Accept: plan\", \"Prefer: plan\"]\nonly = [\"works\"]\n\
         [[endpoint]]\ndata = \"a=1\"\nprofile = \"acp\"\nheaders = [\"Accept: endpoint\"]\n"
    );
    std::fs::write(&plan, text).unwrap();
    let said = check(&["--plan", plan.to_str().unwrap(), "--profile", "stripe", "-H", "accept: line", "--json"]).await;
    assert_eq!(said.json()["profiles"], serde_json::json!(["stripe"]), "{said:?}");
    let sent = said.json()["checks"][0]["timeline"][0]["sent"].as_str().unwrap().to_owned();
    assert!(sent.contains("'accept: line'") && sent.contains("'prefer: plan'"), "{sent}");
    assert!(sent.matches("accept: ").count() == 1 && sent.contains("a=1"), "{sent}");

    std::fs::write(&plan, format!("[[endpoint]]\nurl = \"http://{address}/charges\"\nmax_requests = 3\n")).unwrap();
    for (more, wrong) in
        [(&[][..], "max_requests is for the whole plan"), (&["http://127.0.0.1:1/"], "leave out the one")]
    {
        let said = check(&[&["--plan", plan.to_str().unwrap()], more].concat()).await;
        assert!(said.code == 2 && said.stderr.contains(wrong), "{said:?}");
    }
}
