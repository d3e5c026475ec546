//! An operator asks the ledger about all that is interrupted.

use serde_json::{Value, json};
use tempfile::tempdir;
use testkit::payment_server::{Server, Setup};
use testkit::{Call, Connection};

const CHARGED: [&str; 3] = ["c1", "c2", "c3"];
const NOT_CHARGED: [&str; 2] = ["n1", "n2"];

/// A server with interrupted operations, of which three have charged: it was killed within the others.
async fn interrupted(directory: &tempfile::TempDir) -> Server {
    let setup = Setup::new(directory);
    let mut server = setup.start();
    for key in CHARGED {
        assert_eq!(server.send(&Call::charge(key, "tok_timeout")).await.status, 504);
    }
    let mut waiting = Vec::new();
    for key in NOT_CHARGED {
        let mut connection = Connection::http1(server.address).await.unwrap();
        let call = Call::charge(key, "tok_slow");
        waiting.push(tokio::spawn(async move { connection.send(&call).await.map(drop) }));
    }
    server.charge_begun("tok_slow", NOT_CHARGED.len()).await;
    server.kill();
    let server = setup.start();
    assert_eq!((server.charges().await.len(), server.interrupted().await.len()), (3, 5));
    // The process before has counted the others.
    let (metrics, found) = (server.get("/metrics").await, NOT_CHARGED.len());
    let counter = format!("idempotency_interrupted_total{{cause=\"process-ended\"}} {found}\n");
    assert!(metrics.text().contains(&counter), "{}", metrics.text());
    server
}

async fn listed(server: &Server) -> Value {
    server.send(&Call::operator("/admin/api/operations?state=interrupted&limit=1000")).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_has_is_answered_and_the_rest_is_freed_only_if_that_is_said() {
    let directory = tempdir().unwrap();
    let server = interrupted(&directory).await;
    let found = server.send(&Call::operator_post("/admin/ledger", &listed(&server).await)).await.json();
    assert_eq!(found["changes"].as_array().unwrap().len(), CHARGED.len(), "{found:#}");
    let results = server.send(&Call::operator_post("/admin/api/changes", &found)).await.json();
    assert!(results["results"].as_array().unwrap().iter().all(|one| one["result"] == "done"), "{results:#}");

    let rest =
        server.send(&Call::operator_post("/admin/ledger?otherwise=release", &listed(&server).await)).await.json();
    let actions: Vec<_> = rest["changes"].as_array().unwrap().iter().map(|change| change["action"].clone()).collect();
    assert_eq!(actions, ["release", "release"]);
    let results = server.send(&Call::operator_post("/admin/api/changes", &rest)).await.json();
    assert!(results["results"].as_array().unwrap().iter().all(|one| one["result"] == "done"), "{results:#}");

    let charges = server.charges().await;
    for key in CHARGED {
        let replay = server.send(&Call::charge(key, "tok_timeout")).await;
        assert!(replay.is_replay() && charges.contains(&replay.json()), "{}", replay.text());
    }
    assert_eq!(server.charges().await.len(), CHARGED.len());
    for key in NOT_CHARGED {
        let first = server.send(&Call::charge(key, "tok_slow")).await;
        assert!(first.status == 200 && !first.is_replay(), "{}", first.text());
    }
    assert_eq!(server.charges().await.len(), CHARGED.len() + NOT_CHARGED.len());
}

/// As `idem export` writes them. Those that one ledger does not have stay for the next.
#[tokio::test(flavor = "multi_thread")]
async fn lines_come_back_with_what_is_to_be_done() {
    let directory = tempdir().unwrap();
    let server = interrupted(&directory).await;
    let operations = listed(&server).await["operations"].as_array().unwrap().clone();
    let lines = |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let send = async |path: &str, lines: &[Value]| {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let answer = server.send(&Call { body, ..Call::operator_post(path, &json!(null)) }).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().to_owned()
    };
    let first = lines(&send("/admin/ledger", &operations).await);
    let answered = |lines: &[Value]| lines.iter().filter(|line| line["action"] == "answer").count();
    assert_eq!((first.len(), answered(&first)), (5, 3), "{first:#?}");
    let body = first.iter().find(|line| line["action"] == "answer").unwrap()["answer"]["body"].as_str().unwrap();
    assert!(server.charges().await.contains(&serde_json::from_str(body).unwrap()));
    let second = lines(&send("/admin/ledger?otherwise=release", &first).await);
    assert_eq!((answered(&second), second.iter().filter(|line| line["action"] == "release").count()), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_for_operators_and_says_what_it_does_not_understand() {
    let directory = tempdir().unwrap();
    let server = interrupted(&directory).await;
    let listed = listed(&server).await;
    let stranger = Call { body: listed.to_string(), ..Call::operator_post("/admin/ledger", &listed) };
    assert_eq!(server.send(&stranger.header("host", "pay.example")).await.status, 404);
    // A key that can't be read is in no ledger, which says nothing of its operation.
    let mut odd = listed.clone();
    odd["operations"][0]["derived_keys"]["charge"] = json!("no key");
    for (path, body) in [
        ("/admin/ledger?otherwise=release", odd),
        ("/admin/ledger", json!("nothing")),
        ("/admin/ledger", json!({ "operations": [{ "id": "7e", "fence": "5" }] })),
        ("/admin/ledger?otherwise=answer", listed),
    ] {
        let refused = server.send(&Call::operator_post(path, &body)).await;
        assert_eq!(refused.status, 400, "{path} {body}: {}", refused.text());
    }
}
