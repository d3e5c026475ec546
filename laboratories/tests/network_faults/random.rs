//! Random plans: one to three clients with the same key, each over up to three bad connections.

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use testkit::proxy::{End, Plan, Until, Way};
use testkit::{Dice, Gate};

use crate::cuts::{CLIENTS, Lengths, key};
use crate::ground::{Arrived, Ground, Operation};
use crate::wire::Protocol;

/// Returns a random fault of a connection. Only a client with `done` may be held back until the first client is
/// through.
fn plan(dice: &mut Dice, lengths: Lengths, done: Option<&Gate>) -> Plan {
    let way = dice.pick(&[Way::Request, Way::Response]);
    let byte = dice.below(lengths.of(way) + 1);
    let end = dice.pick(&[End::Fin, End::Rst, End::Half]);
    let mut plan = match (dice.below(6), done) {
        (0, _) => Plan::pass(),
        (1, _) => Plan::pass().swallow(way, byte.min(lengths.of(way) - 1)),
        (2, Some(done)) => Plan::pass().hold(way, byte, Until::Told(done.clone())),
        (3, Some(done)) => Plan::pass().cut_when(way, byte, Until::Told(done.clone()), end),
        _ => Plan::pass().cut(way, byte, end),
    };
    if dice.below(4) == 0 {
        let when = [Until::Over, Until::Read(Way::Request, 1), Until::Read(Way::Request, lengths.request)];
        plan = plan.again(dice.pick(&when));
    }
    if dice.below(8) == 0 {
        plan = plan.in_chunks(1 + dice.below(16));
    }
    plan
}

fn tries(dice: &mut Dice, lengths: &[Lengths; 3], done: Option<&Gate>) -> Vec<(Protocol, Plan)> {
    let mut one = || {
        let protocol = dice.below(3);
        let plan = plan(dice, lengths[protocol], done);
        ([Protocol::Http1, Protocol::Chunked, Protocol::Http2][protocol], plan)
    };
    let mut tries = vec![one()];
    while tries.len() < 3 && one().1.cuts() {
        tries.push(one());
    }
    tries
}

/// Sends `keys` keys through random plans.
pub(crate) async fn plans(ground: &Ground, lengths: [Lengths; 3], dice: &mut Dice, keys: usize) {
    let rounds = (0..keys).map(|number| {
        let done = Gate::default();
        let mut clients = vec![tries(dice, &lengths, None)];
        for _ in 0..dice.below(3) {
            clients.push(tries(dice, &lengths, Some(&done)));
        }
        let source = dice.pick(&["tok_visa", "tok_visa", "tok_visa", "tok_chargeDeclined"]);
        (Operation::new(key("random", number), source), clients, done)
    });
    let rounds: Vec<_> = rounds.collect();
    stream::iter(rounds)
        .for_each_concurrent(CLIENTS, |(operation, clients, done)| async move {
            round(ground, &operation, &clients, &done).await;
        })
        .await;
}

/// Sends one key. The first client is never held back, and the others are no longer once it is through.
async fn round(ground: &Ground, operation: &Operation, clients: &[Vec<(Protocol, Plan)>], done: &Gate) {
    let tries = clients.iter().enumerate().map(|(number, tries)| async move {
        let arrived = ground.try_all(operation, tries).await;
        if number == 0 {
            done.open();
        }
        arrived
    });
    let arrived = join_all(tries).await.into_iter().max().unwrap_or(Arrived::No);
    ground.conclude(operation, arrived, &clients).await;
}
