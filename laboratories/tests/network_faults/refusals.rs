//! Requests that are refused, over connections that are cut: no refusal spoils a key.

use futures_util::StreamExt as _;
use futures_util::stream;
use testkit::Answer;
use testkit::proxy::{End, Plan, Way};

use crate::client::ask;
use crate::cuts::{CLIENTS, Lengths, key};
use crate::ground::{Arrived, Ground, Operation, count};
use crate::wire::Protocol;

/// The number of tries of a good connection.
const TRIES: usize = 10;

/// Returns plans that cut at every `step`th byte.
fn cuts(lengths: Lengths, step: usize) -> impl Iterator<Item = Plan> {
    let of = move |way| (0..=lengths.of(way)).step_by(step).map(move |byte| (way, byte));
    let ends = [End::Fin, End::Rst, End::Half].into_iter().cycle();
    of(Way::Request).chain(of(Way::Response)).zip(ends).map(|((way, byte), end)| Plan::pass().cut(way, byte, end))
}

/// Sends a request that is refused, over a connection that is cut, and over a good one.
async fn refused(ground: &Ground, operation: &Operation, plan: &Plan, refusal: (u16, &str)) {
    let link = ground.link(plan).await;
    let first = ask(&link, &operation.call, Protocol::Http1).await;
    link.is_over().await;
    ground.count_cut(&link);
    // A server that stops reading may reset the connection, and the answer is lost with it.
    let mut last = None;
    for _ in 0..TRIES {
        if last.is_none() {
            last = ground.undisturbed(&operation.call).await;
        }
    }
    let is_right = |answer: &Answer| answer.refusal() == (refusal.0, refusal.1.to_owned());
    if !first.as_ref().is_none_or(is_right) || !last.as_ref().is_some_and(is_right) {
        ground.wrong(format!("{}: not {refusal:?}: {first:?}, {last:?}: {plan:?}", operation.key));
    }
}

/// Checks that a request that is refused before any claim leaves the key to the next one.
pub(crate) async fn too_large(ground: &Ground) {
    const LIMIT: usize = 1024 * 1024;
    let lengths = Lengths { request: LIMIT, response: 1_000 };
    let cuts = cuts(lengths, LIMIT / 16).chain(cuts(Lengths { request: 300, ..lengths }, 50));
    stream::iter(cuts.enumerate())
        .for_each_concurrent(CLIENTS, |(number, plan)| async move {
            let operation = Operation::new(key("large", number), "tok_visa");
            let mut large = operation.clone();
            large.call.body.push_str(&"x".repeat(LIMIT));
            refused(ground, &large, &plan, (413, "body-too-large")).await;
            ground.operate(&operation, &[]).await;
        })
        .await;
}

/// Checks that another request with a used key gets nothing of its outcome.
pub(crate) async fn another_request(ground: &Ground, lengths: Lengths, step: usize) {
    stream::iter(cuts(lengths, step).enumerate())
        .for_each_concurrent(CLIENTS, |(number, plan)| async move {
            let operation = Operation::new(key("reused", number), "tok_visa");
            ground.operate(&operation, &[]).await;
            let other = operation.other();
            ground.attempt(&other, Protocol::Http1, &plan).await;
            match ground.undisturbed(&other.call).await.map(|answer| answer.refusal()) {
                Some((422, slug)) if slug == "key-reused" => count(&ground.figures.reused),
                wrong => ground.wrong(format!("{}: {wrong:?} to another request: {plan:?}", operation.key)),
            }
            ground.conclude(&operation, Arrived::Yes, &plan).await;
        })
        .await;
}
