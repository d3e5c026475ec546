//! A jump of the wall clock has no effect while the store is open. Across a restart, a jump backward has none either. A
//! jump forward across a restart expires records early, by as much as it jumped, and does nothing else.
//!
//! Every answer is compared with a model of the store's time ([`model`]), and with the history of its key.
//!
//! The long form takes this many random steps on one engine, and in memory:
//!
//! ```text
//! ENGINE=sled JUMPS=20000 cargo test -p laboratories --test clock_jumps -- --nocapture
//! ```
//!
//! The control gives the store a clock whose monotonic time is the wall clock's.

mod model;
mod world;

use std::time::Duration;

use laboratories::engine::{ENGINE, Engine};
use testkit::control::{report, violations_with};
use testkit::dice::{below, number};

use model::Life;
use world::{CLOCK, FOLLOWS, Figures, Kind, Policy, World};

const SECOND: Duration = Duration::from_secs(1);
const DAY: u64 = 86_400_000;

/// The direction of a jump of the wall clock.
#[derive(Debug, Clone, Copy)]
enum Jump {
    Forward,
    Backward,
}

impl Jump {
    fn from(self, wall: u64) -> u64 {
        match self {
            Self::Forward => wall + DAY,
            Self::Backward => wall - DAY,
        }
    }
}

#[tokio::test]
async fn a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart() {
    for engine in Engine::chosen() {
        jump_often(engine, number("JUMPS").unwrap_or(400)).await;
    }
}

async fn jump_often(engine: Engine, steps: usize) {
    let (mut figures, embedded) = (Figures::default(), Kind::Embedded(engine));
    for policy in [Policy::Refuse, Policy::Rerun] {
        for jump in [Jump::Forward, Jump::Backward] {
            for (kind, restarts) in [(Kind::Memory, false), (embedded, false), (embedded, true)] {
                let world = World::new(kind, policy, &mut figures);
                in_every_phase(world, jump, restarts).await;
            }
        }
        for kind in [Kind::Memory, embedded] {
            walk(World::new(kind, policy, &mut figures), kind, steps).await;
        }
    }
    let Figures { jumps, restarts, requests, keys, early, violations } = figures;
    let figures =
        format!("jumps {jumps}, restarts {restarts}, requests {requests}, keys {keys}, expired early {early}");
    report(&format!("clock jumps on {engine}: {figures}"), &violations);
    assert!(early > 0, "a jump forward across a restart was to be seen");
}

/// Makes one jump that meets keys in every phase, with a long and with a short life.
async fn in_every_phase(mut world: World<'_>, jump: Jump, restarts: bool) {
    let mut running = Vec::new();
    for life in [Life::Long, Life::Short] {
        // This record has expired when the jump comes, and is not swept.
        let unswept = world.key(life);
        world.request(unswept).await;
        world.advance(life.outcome() / 2);
        let (_before_its_claim, run, done, cut) = (world.key(life), world.key(life), world.key(life), world.key(life));
        world.begin(run).await;
        world.request(done).await;
        world.leave_interrupted(cut).await;
        world.advance(life.outcome() / 2 + SECOND);
        running.push(run);
    }
    let wall = jump.from(world.time.wall);
    if restarts {
        world.restart(wall).await;
    } else {
        world.jump(wall);
    }
    world.sweep().await;
    for life in Life::ALL {
        let keys = world.of(life);
        ask(&mut world, &keys).await;
        for run in &running {
            world.finish(*run).await;
        }
        for _ in 0..4 {
            // Time goes to the last second of the next record, and past it.
            let Some(next) = world.next_expiry(&keys) else { break };
            world.advance(next.saturating_sub(SECOND));
            ask(&mut world, &keys).await;
            world.sweep().await;
            world.advance(SECOND);
            world.sweep().await;
            ask(&mut world, &keys).await;
        }
    }
    world.end();
}

async fn ask(world: &mut World<'_>, keys: &[usize]) {
    for key in keys {
        world.request(*key).await;
    }
}

/// Takes `steps` random steps.
async fn walk(mut world: World<'_>, kind: Kind, steps: usize) {
    let keys: Vec<_> = (0..8).flat_map(|_| Life::ALL).map(|life| world.key(life)).collect();
    for _ in 0..steps {
        let key = keys[below(keys.len())];
        match below(100) {
            0..40 => world.request(key).await,
            40..48 => world.begin(key).await,
            48..56 => world.finish(key).await,
            56..62 => world.leave_interrupted(key).await,
            62..74 => world.advance(Duration::from_secs(below(7_200) as u64)),
            74..80 => {
                let next = world.next_expiry(&keys).unwrap_or(SECOND);
                world.advance(next.saturating_sub(SECOND * below(2) as u32));
            }
            80..92 => {
                let jump = [Jump::Forward, Jump::Backward][below(2)];
                world.jump(jump.from(world.time.wall));
            }
            92..96 if kind != Kind::Memory => {
                let wall = world.time.wall;
                let walls = [wall, Jump::Forward.from(wall), Jump::Backward.from(wall)];
                world.restart(walls[below(3)]).await;
            }
            _ => world.sweep().await,
        }
    }
    world.end();
}

#[test]
fn without_steady_time_a_clock_that_jumps_is_seen_to_be_noticed() {
    let test = "a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart";
    for engine in Engine::chosen() {
        let violations = violations_with(test, &[(ENGINE, engine.name()), (CLOCK, FOLLOWS), ("JUMPS", "100")]);
        println!("clock jumps on {engine} without steady time: violations {violations}");
        assert!(violations > 0);
    }
}
