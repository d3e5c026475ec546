//! A client that sends one request over one connection, and takes the answer.

use std::future::pending;
use std::time::Duration;

use testkit::client::Raw;
use testkit::proxy::{Flow, Link, Traffic, Way};
use testkit::{Answer, Call, Connection};
use tokio::time::timeout;

use crate::wire::Protocol;

/// The time after which a client counts as hung.
const HANGS: Duration = Duration::from_secs(60);

/// Sends a request, and reads its answer if one comes. If a direction is swallowed, the client gives up once the
/// request or the answer is lost for good.
pub(crate) async fn ask(link: &Link, call: &Call, protocol: Protocol) -> Option<Answer> {
    let asked = async {
        tokio::select! {
            biased;
            answer = exchange(link, call, protocol) => answer,
            () = lost(link, call, protocol) => None,
        }
    };
    let answer = timeout(HANGS, asked).await.unwrap_or_else(|_| panic!("a client hangs: {link:#?}"));
    let Flow { read, forwarded, .. } = &link.traffic().request;
    let is_whole = protocol.has_request(&read[..*forwarded], call);
    // The request was whole when it left the client. If the network cut it, `body-incomplete` counts as no answer.
    answer.filter(|answer| is_whole || answer.problem() != "body-incomplete")
}

async fn exchange(link: &Link, call: &Call, protocol: Protocol) -> Option<Answer> {
    if protocol == Protocol::Http2 {
        let mut connection = Connection::http2(link.address).await.ok()?;
        return connection.send(call).await.ok();
    }
    all_over_one(link, &protocol.request(call), 1).await.pop()
}

/// Sends bytes, and reads answers until there are `count`, or until no more will come.
pub(crate) async fn all_over_one(link: &Link, bytes: &[u8], count: usize) -> Vec<Answer> {
    let Ok(client) = Raw::connect(link.address).await else { return Vec::new() };
    client.answers(bytes, count).await
}

async fn lost(link: &Link, call: &Call, protocol: Protocol) {
    match link.plan.swallows() {
        // hyper's client sometimes waits for ever if its connection ends before the server's settings have come.
        None if protocol == Protocol::Http2 => link.is_over().await,
        None => pending().await,
        Some(Way::Request) => {
            let lost = |traffic: &Traffic| protocol.has_request(&traffic.request.read, call);
            link.sees("the request is lost", lost).await;
        }
        Some(Way::Response) => {
            let lost = |traffic: &Traffic| traffic.response.ended || protocol.has_answer(&traffic.response.read);
            link.sees("the answer is lost", lost).await;
        }
    }
}
