//! A key in the body of a request, over two servers.

use http::Request;
use testkit::lab::Lab as Requests;
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::server::KeyFrom;
use tower_idempotency_postgres::PostgresStore;

use crate::lab::lab;

#[tokio::test]
async fn a_call_whose_key_is_in_its_body_runs_once_on_two_servers() {
    let Some(lab) = lab("a key in the body").await else { return };
    let server = async || {
        let store = PostgresStore::open(lab.another().await).await.unwrap();
        let layer = IdempotencyLayer::new(store).key_from(KeyFrom::json_pointer("/params/key").unwrap());
        Requests::counting(layer)
    };
    let [first, second] = [server().await, server().await];
    let call = |amount: u32| {
        Request::post("/rpc").body(format!(r#"{{"params":{{"key":"k","amount":{amount}}}}}"#).into()).unwrap()
    };
    assert_eq!(first.send(call(5)).await.text(), "effect 1");
    let again = second.send(call(5)).await;
    assert_eq!((again.text(), again.is_replay()), ("effect 1", true));
    second.send(call(6)).await.assert_refusal(422, "key-reused", false, None);
    assert_eq!((first.effects(), second.effects()), (1, 0));
}
