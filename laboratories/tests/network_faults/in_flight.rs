//! Connections that end while their charge is being made, which takes two seconds.

use futures_util::future::join_all;
use testkit::Gate;
use testkit::proxy::{End, Plan, Until, Way};

use crate::cuts::{Lengths, key};
use crate::ground::{Arrived, Ground, Operation, edit};
use crate::wire::Protocol;

const SOURCE: &str = "tok_slow";

/// Cuts the connections, or repeats their requests, once all charges have begun.
pub(crate) async fn cut_in_flight(ground: &Ground, [http1, chunked, http2]: [Lengths; 3]) {
    let gate = Gate::default();
    let told = || Until::Told(gate.clone());
    let cut = |lengths: Lengths, end| Plan::pass().cut_when(Way::Request, lengths.request, told(), end);
    let mut plans = Vec::new();
    for end in [End::Fin, End::Rst, End::Half] {
        plans.push((Protocol::Http1, cut(http1, end)));
        plans.push((Protocol::Chunked, cut(chunked, end)));
        // The moment at which an HTTP/2 client has sent its last byte is unknown; the server has sent its settings by
        // then.
        plans.push((Protocol::Http2, Plan::pass().cut_when(Way::Response, 0, told(), end)));
        plans.push((Protocol::Http1, cut(http1, end).again(told())));
        plans.push((Protocol::Http1, edit(cut(http1, end).again(told()))));
    }
    for (protocol, lengths) in [(Protocol::Http1, http1), (Protocol::Http2, http2)] {
        plans.push((protocol, edit(Plan::pass().again(told()))));
        plans.push((protocol, Plan::pass().swallow(Way::Response, lengths.response / 2).again(told())));
    }
    let clients = plans.iter().enumerate().map(|(number, one)| async move {
        let operation = Operation::new(key("flight", number), SOURCE);
        ground.try_all(&operation, std::slice::from_ref(one)).await;
        // The charge has begun, whatever the network knows of it.
        ground.conclude(&operation, Arrived::Yes, one).await;
    });
    let network = async {
        ground.server.charge_begun(SOURCE, plans.len()).await;
        gate.open();
    };
    tokio::join!(join_all(clients), network);
}
