//! A network that cuts, delays, swallows and repeats changes nothing: each key is charged once, and every client that
//! comes again gets the same answer.
//!
//! The real server runs behind a proxy of our own, under both policies. The short form cuts every byte of one request
//! and one answer, and some bytes of the others. The long form cuts every byte of everything, and sends this many keys
//! through random plans, under each policy; its last line has the figures:
//!
//! ```text
//! NETWORK_FAULTS=10000 cargo test -p laboratories --test network_faults the_same -- --nocapture
//! ```
//!
//! It prints its seed, which `NETWORK_FAULTS_SEED` takes.
//!
//! Its controls break the crate inside: `.ci/controls -p laboratories --test network_faults`.

mod client;
mod cuts;
mod ground;
mod in_flight;
mod network;
mod random;
mod refusals;
mod shapes;
mod wire;

use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::Dice;
use testkit::control::{is_control, report};
use testkit::dice::number;

use ground::{Figures, Ground};
use wire::Protocol;

const KEYS: &str = "NETWORK_FAULTS";
const SEED: &str = "NETWORK_FAULTS_SEED";

/// The size of a run.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// The step from one cut byte to the next, in the plainest request and its answer, and in all others.
    plain: usize,
    others: usize,
    /// The number of keys that go through random plans.
    keys: usize,
}

#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[tokio::test(flavor = "multi_thread")]
async fn a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same() {
    let seed = number(SEED).unwrap_or_else(testkit::dice::seed);
    println!("network faults: {SEED}={seed}");
    let (short, brief) = (Extent { plain: 1, others: 11, keys: 80 }, Extent { plain: 7, others: 37, keys: 80 });
    let (refuse, rerun) = match number(KEYS) {
        _ if is_control() => (brief, brief),
        Some(keys) => [Extent { plain: 1, others: 1, keys }; 2].into(),
        None => (short, brief),
    };
    // Nothing crashes here, so no run is interrupted under either policy.
    let grounds = [Ground::new("--on-interrupted refuse"), Ground::new("--on-interrupted rerun --on-in-flight reject")];
    let (mut dice, mut others) = (Dice::new(seed), Dice::new(!seed));
    tokio::join!(all(&grounds[0], refuse, &mut dice), all(&grounds[1], rerun, &mut others));

    let mut violations = Vec::new();
    for ground in &grounds {
        violations.extend(ground.judge().await);
    }
    report(&figures(&grounds), &violations);
    for ground in grounds {
        ground.assert_shown();
        ground.server.stop().await;
    }
}

fn figures(grounds: &[Ground; 2]) -> String {
    let of = |of: fn(&Figures) -> &AtomicUsize| -> usize {
        grounds.iter().map(|ground| of(&ground.figures).load(Ordering::Relaxed)).sum()
    };
    let (connections, cuts) = (of(|figures| &figures.connections), of(|figures| &figures.cuts));
    let replays = of(|figures| &figures.replays);
    let keys: usize = grounds.iter().map(|ground| ground.history.keys()).sum();
    let acknowledged: usize = grounds.iter().map(|ground| ground.history.acknowledged()).sum();
    format!(
        "network faults: connections {connections}, cuts {cuts}, replays {replays}, keys {keys}, \
         acknowledged {acknowledged}"
    )
}

/// Does all steps on one server.
async fn all(ground: &Ground, extent: Extent, dice: &mut Dice) {
    let Extent { plain, others, keys } = extent;
    let lengths = [
        cuts::lengths(ground, Protocol::Http1).await,
        cuts::lengths(ground, Protocol::Chunked).await,
        cuts::lengths(ground, Protocol::Http2).await,
    ];
    let [http1, chunked, http2] = lengths;
    cuts::at_every_byte(ground, Protocol::Http1, http1, plain).await;
    cuts::at_every_byte(ground, Protocol::Chunked, chunked, others).await;
    cuts::at_every_byte(ground, Protocol::Http2, http2, others).await;
    cuts::pipelined(ground, http1, others).await;
    shapes::one_client(ground, lengths).await;
    shapes::late_bytes(ground, http1).await;
    in_flight::cut_in_flight(ground, lengths).await;
    refusals::too_large(ground).await;
    refusals::another_request(ground, http1, others).await;
    random::plans(ground, lengths, dice, keys).await;
}

#[cfg(idempotency_laboratory)]
mod control_of_the_network_faults {
    use testkit::control::violations_when_broken;

    fn without(protection: &str) {
        let laboratory = "a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same";
        let violations = violations_when_broken(laboratory, protection, &[]);
        println!("network faults without {protection}: violations {violations}");
        assert!(violations > 0);
    }

    #[test]
    fn the_control_sees_a_run_that_ends_with_its_connection() {
        without("detached");
    }

    #[test]
    fn the_control_sees_an_outcome_that_is_not_recorded() {
        without("record");
    }
}
