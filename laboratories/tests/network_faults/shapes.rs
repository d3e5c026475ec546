//! The other faults of a network: small chunks, and bytes that come late, never or twice.

use futures_util::StreamExt as _;
use futures_util::stream;
use testkit::Gate;
use testkit::proxy::{End, Plan, Until, Way};

use crate::client::ask;
use crate::cuts::{CLIENTS, Lengths, key};
use crate::ground::{Arrived, Ground, Operation, edit, told};
use crate::wire::Protocol;

const PROTOCOLS: [Protocol; 3] = [Protocol::Http1, Protocol::Chunked, Protocol::Http2];

/// Returns about `count` bytes of a direction, its first and its last one among them.
fn sample(length: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(length / count).chain([length - 1])
}

/// Returns plans that need no further step of the test, for a request of these lengths.
fn plans(lengths: Lengths) -> Vec<Plan> {
    let Lengths { request, response } = lengths;
    let along = || Until::Read(Way::Request, 1);
    let cut = |way, after, end| Plan::pass().cut(way, after, end);
    vec![
        Plan::pass().in_chunks(1),
        Plan::pass().again(Until::Over),
        Plan::pass().again(along()),
        Plan::pass().in_chunks(1).again(along()),
        Plan::pass().hold(Way::Response, 1, Until::Read(Way::Request, request / 2)).in_chunks(7),
        cut(Way::Response, 0, End::Fin).again(Until::Over),
        cut(Way::Response, response / 2, End::Rst).again(along()),
        cut(Way::Request, request, End::Rst).again(along()),
        cut(Way::Request, request / 2, End::Fin).again(Until::Over),
        cut(Way::Request, request - 1, End::Half),
        Plan::pass().swallow(Way::Request, request / 2).again(along()),
        Plan::pass().swallow(Way::Request, request - 1),
        Plan::pass().swallow(Way::Response, response / 2).again(Until::Over),
    ]
}

/// Tries every plan over every protocol, and swallows at several bytes.
pub(crate) async fn one_client(ground: &Ground, lengths: [Lengths; 3]) {
    let mut tries = Vec::new();
    for (protocol, lengths) in PROTOCOLS.into_iter().zip(lengths) {
        let mut plans = plans(lengths);
        // The changed request comes too late to own the key.
        plans.push(edit(Plan::pass().again(Until::Over)));
        plans.push(edit(Plan::pass().cut(Way::Response, lengths.response - 1, End::Rst).again(Until::Over)));
        for way in [Way::Request, Way::Response] {
            plans.extend(sample(lengths.of(way), 10).map(|byte| Plan::pass().swallow(way, byte)));
        }
        tries.extend(plans.into_iter().map(|plan| (protocol, plan)));
    }
    stream::iter(tries.into_iter().enumerate())
        .for_each_concurrent(CLIENTS, |(number, one)| async move {
            ground.operate(&Operation::new(key("shape", number), "tok_visa"), &[one]).await;
        })
        .await;
}

/// Holds back bytes until the client has come again over another connection, and got its outcome there. Every other
/// client has hung up meanwhile, and the bytes come all the same.
pub(crate) async fn late_bytes(ground: &Ground, lengths: Lengths) {
    let request = sample(lengths.request, 20).map(|byte| (Way::Request, byte));
    // An answer that has begun is certainly the first one.
    let response = sample(lengths.response, 20).map(|byte| (Way::Response, byte.max(1)));
    stream::iter(request.chain(response).enumerate())
        .for_each_concurrent(CLIENTS, |(number, (way, byte))| async move {
            let operation = Operation::new(key("late", number), "tok_visa");
            late(ground, &operation, way, byte, number % 2 == 0).await;
        })
        .await;
}

async fn late(ground: &Ground, operation: &Operation, way: Way, byte: usize, hangs_up: bool) {
    let gate = Gate::default();
    let plan = Plan::pass().hold(way, byte, Until::Told(gate.clone()));
    let sent = ground.sent(operation);
    let link = ground.link(&plan).await;
    let mut first = Box::pin(ask(&link, &operation.call, Protocol::Http1));
    tokio::select! {
        answer = &mut first => return ground.wrong(format!("{}: not held back: {answer:?}", operation.key)),
        () = gate.arrival() => {}
    }
    if hangs_up {
        drop(first);
        ground.conclude(operation, arrived(way), &plan).await;
        gate.open();
    } else {
        ground.conclude(operation, arrived(way), &plan).await;
        gate.open();
        ground.history.answered(sent, told(first.await.as_ref()));
    }
    ground.over(&link, operation, Protocol::Http1, true).await;
    ground.conclude(operation, Arrived::Yes, &plan).await;
}

/// Returns the progress of a request if bytes of the request or of its answer are held back.
fn arrived(way: Way) -> Arrived {
    match way {
        Way::Request => Arrived::No,
        Way::Response => Arrived::Yes,
    }
}
