//! Requests that are refused, or answered with an error, over connections that are cut: there is no charge, and
//! no refusal spoils a key.

use futures_util::StreamExt as _;
use futures_util::stream;
use testkit::Answer;
use testkit::proxy::{End, Plan, Way};

use crate::client::ask;
use crate::cuts::{CLIENTS, Lengths, key};
use crate::ground::{Arrived, Ground, Operation, count};
use crate::wire::Protocol;

/// How often a good connection is tried.
const TRIES: usize = 10;

/// Cuts at every `step`th byte.
fn cuts(lengths: Lengths, step: usize) -> impl Iterator<Item = Plan> {
    let of = move |way| (0..=lengths.of(way)).step_by(step).map(move |byte| (way, byte));
    let ends = [End::Fin, End::Rst, End::Half].into_iter().cycle();
    of(Way::Request).chain(of(Way::Response)).zip(ends).map(|((way, byte), end)| Plan::pass().cut(way, byte, end))
}

/// Sends what is refused, over a connection that is cut, and over a good one.
async fn refused(ground: &Ground, operation: &Operation, plan: &Plan, refusal: (u16, &str)) {
    let link = ground.link(plan).await;
    let first = ask(&link, &operation.call, Protocol::Http1).await;
    link.is_over().await;
    ground.count_cut(&link);
    // A server that does not read on may reset the connection, and the answer is lost with it.
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

/// A request that is refused before any claim leaves the key to the next one.
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

/// Another request under a key that was used gets nothing of it.
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

/// Requests that must not run.
pub(crate) async fn malformed(ground: &Ground, lengths: Lengths, step: usize) {
    stream::iter(cuts(lengths, step).enumerate())
        .for_each_concurrent(CLIENTS, |(number, plan)| async move {
            let mut operation = Operation::new(key("refused", number), "tok_visa");
            ground.must_not_charge(&operation.key);
            let refusal = if number % 2 == 0 {
                operation.call = operation.call.header("idempotency-key", r"no\key");
                (400, "key-malformed")
            } else {
                operation.call = operation.call.header("authorization", "Digest nobody");
                (401, "custom")
            };
            refused(ground, &operation, &plan, refusal).await;
        })
        .await;
}

/// A refusal by the handler is an outcome like any other.
pub(crate) async fn declined(ground: &Ground, lengths: Lengths, step: usize) {
    stream::iter(cuts(lengths, step).enumerate())
        .for_each_concurrent(CLIENTS, |(number, plan)| async move {
            let operation = Operation::new(key("declined", number), "tok_chargeDeclined");
            ground.must_not_charge(&operation.key);
            ground.operate(&operation, &[(Protocol::Http1, plan)]).await;
        })
        .await;
}
