//! Payments that take place exactly once, for the examples that commit effect and record in one transaction.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use tower_idempotency_postgres::tokio_postgres::{NoTls, connect};

use crate::postgres::own_server;

const PAYMENTS: usize = 60;

/// Sends a payment until an answer says how it ended.
async fn pay(app: Router, key: String) -> String {
    let begin = Instant::now();
    loop {
        let request = Request::post("/payments").header("idempotency-key", &key).body(Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if status == StatusCode::OK {
            return body;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "{status}: {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends payments to two processes, which `open` starts over one database, while its server is killed.
pub async fn pay_while_the_server_is_killed(open: impl AsyncFn(&str) -> Router) {
    let Some(mut server) = own_server("exactly once", &[]) else { return };
    let apps = [open(&server.url()).await, open(&server.url()).await];
    // Each is sent to both.
    let sent: Vec<_> = (0..2 * PAYMENTS)
        .map(|number| {
            let key = number / 2;
            (key, tokio::spawn(pay(apps[number % 2].clone(), format!("order-{key}"))))
        })
        .collect();
    for kill in 1..=2 {
        // Under load: some transactions are under way, whichever.
        while sent.iter().filter(|(_, sent)| sent.is_finished()).count() < 10 * kill {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.kill();
        server.start_again();
    }
    let mut told = vec![HashSet::new(); PAYMENTS];
    for (key, sent) in sent {
        told[key].insert(sent.await.unwrap());
    }
    assert!(told.iter().all(|answers| answers.len() == 1), "{told:?}");
    let (client, connection) = connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let paid: i64 = client.query_one("SELECT count(*) FROM payment", &[]).await.unwrap().get(0);
    assert_eq!(usize::try_from(paid).unwrap(), PAYMENTS);
}
