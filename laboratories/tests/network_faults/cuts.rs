//! Connections that end at byte k, for every k.

use futures_util::StreamExt as _;
use futures_util::stream;
use testkit::proxy::{End, Plan, Traffic, Until, Way};

use crate::client::{all_over_one, ask};
use crate::ground::{Arrived, Ground, Operation, told};
use crate::wire::Protocol;

/// The number of clients at work at once.
pub(crate) const CLIENTS: usize = 16;

/// The lengths of request and answer on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    pub(crate) request: usize,
    pub(crate) response: usize,
}

impl Lengths {
    pub(crate) fn of(self, way: Way) -> usize {
        match way {
            Way::Request => self.request,
            Way::Response => self.response,
        }
    }
}

/// Returns a key of a phase. All keys are equally long.
pub(crate) fn key(phase: &str, number: usize) -> String {
    format!("{phase:-<12}{number:07}")
}

/// Measures an undisturbed exchange.
pub(crate) async fn lengths(ground: &Ground, protocol: Protocol) -> Lengths {
    let operation = Operation::new(key(&format!("{protocol:?}"), 9_999_999), "tok_visa");
    let sent = ground.sent(&operation);
    let link = ground.link(&Plan::pass()).await;
    let answer = ask(&link, &operation.call, protocol).await;
    assert_eq!(answer.as_ref().expect("it is undisturbed").status, 200);
    ground.history.answered(sent, told(answer.as_ref()));
    let Traffic { request, response, .. } = &*link.traffic();
    // Over HTTP/2 each side sends more than that.
    let end = |bytes: &[u8], is_whole: &dyn Fn(&[u8]) -> bool| (0..=bytes.len()).find(|end| is_whole(&bytes[..*end]));
    let request = end(&request.read, &|bytes| protocol.has_request(bytes, &operation.call));
    let response = end(&response.read, &|bytes| protocol.has_answer(bytes));
    Lengths { request: request.expect("it was whole"), response: response.expect("it was whole") }
}

/// Cuts every `step`th byte of request and answer, in every way, each time for a key of its own. The client comes again
/// over a good connection. If the first connection was reset, the client tries another one before, which is cut
/// elsewhere.
pub(crate) async fn at_every_byte(ground: &Ground, protocol: Protocol, lengths: Lengths, step: usize) {
    let phase = format!("{protocol:?}");
    let mut plans = Vec::new();
    for end in [End::Fin, End::Rst, End::Half] {
        for way in [Way::Request, Way::Response] {
            let cuts = (0..=lengths.of(way)).step_by(step);
            plans.extend(cuts.map(|byte| (end, Plan::pass().cut(way, byte, end))));
        }
    }
    stream::iter(plans.into_iter().enumerate())
        .for_each_concurrent(CLIENTS, |(number, (end, plan))| {
            let mut tries = vec![(protocol, plan)];
            if end == End::Rst {
                let way = if number % 2 == 0 { Way::Request } else { Way::Response };
                tries.push((protocol, Plan::pass().cut(way, number % lengths.of(way), End::Fin)));
            }
            let operation = Operation::new(key(&phase, number), "tok_visa");
            async move { ground.operate(&operation, &tries).await }
        })
        .await;
}

/// Sends three requests together: two keys, and the first again. The connection is cut at every `step`th byte.
pub(crate) async fn pipelined(ground: &Ground, lengths: Lengths, step: usize) {
    let request = (0..=3 * lengths.request).step_by(step).map(|byte| (Way::Request, byte));
    let response = (0..=3 * lengths.response).step_by(step).map(|byte| (Way::Response, byte));
    stream::iter(request.chain(response).enumerate())
        .for_each_concurrent(CLIENTS, |(number, (way, byte))| async move {
            let end = if number % 2 == 0 { End::Fin } else { End::Rst };
            let mut plan = Plan::pass().cut(way, byte, end);
            if way == Way::Response && number % 3 == 0 {
                // The second request comes while the first is being answered.
                plan = plan.hold(Way::Request, lengths.request, Until::Read(Way::Response, 1));
            }
            let [one, two] = [2 * number, 2 * number + 1].map(|number| Operation::new(key("pipe", number), "tok_visa"));
            in_one_go(ground, &[&one, &two, &one], &plan).await;
        })
        .await;
}

async fn in_one_go(ground: &Ground, operations: &[&Operation; 3], plan: &Plan) {
    let requests = operations.map(|operation| Protocol::Http1.request(&operation.call));
    let sent = operations.map(|operation| ground.sent(operation));
    let link = ground.link(plan).await;
    let answers = all_over_one(&link, &requests.concat(), requests.len()).await;
    link.is_over().await;
    ground.count_cut(&link);
    for (number, sent) in sent.into_iter().enumerate() {
        ground.history.answered(sent, told(answers.get(number)));
    }
    let forwarded = link.traffic().request.forwarded;
    for (number, operation) in operations[..2].iter().enumerate() {
        let is_whole = forwarded >= requests[..=number].iter().map(Vec::len).sum();
        let arrived = match (is_whole, answers.get(number)) {
            (false, _) => Arrived::No,
            (true, None) => Arrived::Perhaps,
            (true, Some(_)) => Arrived::Yes,
        };
        ground.conclude(operation, arrived, plan).await;
    }
}
