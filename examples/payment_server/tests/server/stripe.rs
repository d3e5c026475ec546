//! Stripe's own clients, as they are, against the server in Stripe's profile.

use std::ffi::OsString;
use std::process::Stdio;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tempfile::tempdir;
use testkit::payment_server::{Server, Setup};
use testkit::proxy::Proxy;
use testkit::{Call, skipped};
use tokio::process::Command;

use super::clients::losing_the_first_answer;

/// A client: what runs its conversation, and the variable with the directory of Stripe's package, as `.ci/run` sets it.
struct Client {
    interpreter: &'static str,
    conversation: &'static str,
    package: &'static str,
}

const PYTHON: Client =
    Client { interpreter: "python3", conversation: "tests/server/stripe/conversation.py", package: "STRIPE_PYTHON" };
const NODE: Client =
    Client { interpreter: "node", conversation: "tests/server/stripe/conversation.mjs", package: "STRIPE_NODE" };

impl Client {
    /// Holds the conversation. `None`: it can't run here.
    async fn converse(&self, server: &Server, losing: &Proxy) -> Option<Value> {
        let Some(package) = std::env::var_os(self.package) else {
            skipped("Stripe's clients work as they are", &format!("{} names no directory", self.package));
            return None;
        };
        let mut command = Command::new(self.interpreter);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/").to_owned() + self.conversation);
        command.env("PYTHONPATH", &package).env("STRIPE_NODE", OsString::from(&package));
        command.env("API", format!("http://{}", server.address)).env("LOSING", format!("http://{}", losing.address()));
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("the interpreter starts");
        assert!(output.status.success(), "{output:?}");
        Some(serde_json::from_slice(&output.stdout).expect("it prints JSON"))
    }
}

async fn works_as_it_is(client: Client) {
    let directory = tempdir().unwrap();
    let in_stripe_s_profile = ["env", "PAYMENTS_LAYER__PROFILE=stripe"].map(OsString::from);
    let server = Setup::new(&directory).with("--on-in-flight reject").under(in_stripe_s_profile).start();
    let (losing, connections) = losing_the_first_answer(&server).await;
    let Some(said) = client.converse(&server, &losing).await else { return };

    // It has chosen a key, and has sent it again.
    assert!(connections.load(Ordering::SeqCst) >= 2, "no answer was lost");
    assert_eq!(said["lost"]["replayed"], "true");
    assert_eq!(said["first"]["replayed"], Value::Null);
    assert_eq!((&said["again"]["id"], &said["again"]["replayed"]), (&said["first"]["id"], &json!("true")));
    assert_eq!(said["again"]["key"], "first");
    let refused = |error, status, code: Value, replayed: Value, retry: Value| json!({ "error": error, "status": status, "code": code, "replayed": replayed, "retry": retry });
    let is_not = Value::Null;
    let reused = refused("IdempotencyError", 400, "idempotency_key_reused".into(), is_not.clone(), "false".into());
    assert_eq!(said["reused"], reused);

    // Of two at once, one charges and the other one gets an error that its client retries.
    let in_use = refused("APIError", 409, "idempotency_key_in_use".into(), is_not.clone(), "true".into());
    let at_once = said["at once"]["answers"].as_array().unwrap();
    assert_eq!(at_once.iter().filter(|answer| answer["id"].is_string()).count(), 1, "{at_once:?}");
    assert!(at_once.contains(&in_use), "{at_once:?}");
    let patient = said["at once, patient"]["answers"].as_array().unwrap();
    assert!(patient[0]["id"].is_string() && patient[0]["id"] == patient[1]["id"], "{patient:?}");

    let invalid = refused("InvalidRequestError", 400, is_not.clone(), is_not.clone(), is_not.clone());
    assert_eq!(said["invalid"], invalid);
    assert!(said["corrected"]["id"].is_string(), "the key is free: {}", said["corrected"]);
    assert_eq!(said["declined"], refused("CardError", 402, "card_declined".into(), is_not.clone(), is_not.clone()));
    let replay = refused("CardError", 402, "card_declined".into(), "true".into(), "false".into());
    assert_eq!(said["declined again"], replay);

    // A 500 is an outcome: the client asks again, gets the replay, and then lets it be.
    assert_eq!(said["failed"], refused("APIError", 500, is_not.clone(), "true".into(), "false".into()));
    // What is unknown stays so: the first answer says that a retry is of no use, and the client lets it be.
    let unknown = refused("APIError", 504, is_not.clone(), is_not, "false".into());
    assert_eq!(said["unknown"], unknown);
    // lost, first, one of each pair, patient, corrected, failed, unknown.
    let pairs = usize::try_from(said["at once"]["pairs"].as_u64().unwrap()).unwrap();
    let charges = Call::get("/v1/charges?limit=100").header("authorization", "Bearer sk_test_alice");
    let charges = server.send(&charges).await.json();
    assert_eq!(charges["data"].as_array().unwrap().len(), 6 + pairs, "{charges}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stripe_s_client_for_python_works_as_it_is() {
    works_as_it_is(PYTHON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stripe_s_client_for_node_works_as_it_is() {
    works_as_it_is(NODE).await;
}
