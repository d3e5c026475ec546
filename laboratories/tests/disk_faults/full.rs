//! A disk that is really full: a small file system in memory, filled to the last byte.

use laboratories::disk::quick_directory;
use laboratories::disk::rebuild::read_image;
use laboratories::engine::{Engine, Settings};
use laboratories::small_disk::Small;
use laboratories::work::notes;
use laboratories::work::notes::{Found, Note, Said};
use laboratories::work::retry::{judge, judge_image};
use testkit::lab::{Lab, post};
use testkit::{Gate, skipped};
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::store::{Health, Store as _};

use crate::points::{known, wrong_in};
use crate::process::live;
use crate::scenario::{Act, FILLER, plan_in};

/// The space that is left when the store goes on: nothing, less than a block, and more than one.
const LEFT: [u64; 4] = [0, 1_000, 20_000, 700_000];

/// The figures of the full disks.
#[derive(Default)]
struct Came {
    violations: Vec<String>,
    acknowledged: usize,
    /// The number of answers that were given and not recorded.
    unsaved: usize,
    /// The number of times that the store failed or could not be opened.
    failed: usize,
    /// The number of requests that the store refused because it was full.
    full: usize,
}

/// Fills disks and returns the figures, or `None` if no file system can be mounted.
fn fill(engine: Engine, act: fn(u64) -> Act) -> Option<Came> {
    let mut came = Came::default();
    for left in LEFT {
        let directory = quick_directory();
        let plan = plan_in(engine, directory.path(), act(left), 20);
        let small = match Small::mounted(&plan.data, "24m") {
            Ok(small) => small,
            Err(obstacle) => {
                skipped("what happens on a full disk", &obstacle);
                return None;
            }
        };
        came.violations.extend(live(&plan, directory.path(), None).err());
        let (notes, mut image) = (notes::read_file(&plan.notes), read_image(&plan.data));
        let is_unsaved = |note: &&Note| matches!(note, Note::Told { said: Said::Outcome(_), recorded: false, .. });
        came.unsaved += notes.iter().filter(is_unsaved).count();
        image.remove(FILLER);
        came.acknowledged += known(&notes).histories.acknowledged();
        came.violations.extend(judge_image(engine, &image, &known(&notes)));
        // This process finds the disk full from the start, and has no mark.
        let again = plan_in(engine, directory.path(), Act::Everything, 20);
        came.violations.extend(live(&again, directory.path(), None).err());
        let notes = notes::read_file(&plan.notes);
        came.violations.extend(wrong_in(&notes));
        let count = |is_one: fn(&Note) -> bool| notes.iter().filter(|note| is_one(note)).count();
        came.failed += count(|note| matches!(note, Note::Found(Found::Poisoned(_) | Found::NotOpened(_))));
        came.full += count(|note| matches!(note, Note::Told { said: Said::Refused(name), .. } if name == "store-full"));
        std::fs::remove_file(plan.data.join(FILLER)).expect("it is there");
        came.violations.extend(judge(engine, &plan.data, &known(&notes)));
        drop(small);
    }
    came.violations.iter().for_each(|violation| println!("{violation}"));
    println!(
        "full disk on {engine}: disks {}, failures {}, refused as full {}, acknowledged keys {}, of which {} without a record, \
         violations {}",
        LEFT.len(),
        came.failed,
        came.full,
        came.acknowledged,
        came.unsaved,
        came.violations.len()
    );
    Some(came)
}

#[test]
fn on_a_full_disk_nothing_false_is_said_and_with_room_again_all_is_there() {
    for engine in Engine::chosen() {
        let Some(came) = fill(engine, Act::Fill) else { return };
        assert_eq!(came.violations.len(), 0);
        assert!(came.failed > 0 && came.acknowledged > 0, "it shows nothing");
    }
}

/// Sends new keys until the store notices that the disk has less space.
async fn until_refused(lab: &Lab) {
    for number in 0..10_000 {
        if lab.post(&format!("new-{number}"), "a").await.refusal() == (503, "store-full".to_owned()) {
            return;
        }
    }
    panic!("new keys are never refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_had_begun_before_there_was_less_left_are_all_recorded() {
    for engine in Engine::chosen() {
        run_below_the_mark(engine).await;
    }
}

async fn run_below_the_mark(engine: Engine) {
    const RUNS: usize = 64;
    let directory = quick_directory();
    let small = match Small::mounted(directory.path(), "24m") {
        Ok(small) => small,
        Err(obstacle) => return skipped("that runs under way are recorded below the mark", &obstacle),
    };
    let path = directory.path().join("store");
    let store = engine.open(&path, Settings { min_free: Some(4 << 20), ..Settings::default() }).unwrap().any();
    let (gate, layer) = (Gate::default(), IdempotencyLayer::new(store.clone()));
    let answers = gate.clone();
    let lab = Lab::new(layer.clone(), move |_| {
        let gate = answers.clone();
        async move {
            gate.pass().await;
            vec![b'x'; 8_000]
        }
    });
    let running: Vec<_> = (0..RUNS).map(|number| lab.spawn(post(&format!("k{number}"), "a"))).collect();
    while lab.effects() < RUNS {
        tokio::task::yield_now().await;
    }
    crate::scenario::fill(directory.path(), 2 << 20);
    until_refused(&Lab::counting(layer.clone())).await;
    gate.open();
    for answer in running {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    // Now no space is left at all.
    crate::scenario::fill(directory.path(), 0);
    assert!(lab.post("k0", "a").await.is_replay());
    assert_eq!(layer.stats().unsaved, 0);
    assert_eq!(store.health(), Health::Full { limit: "min_free_space" });
    drop((lab, layer));
    std::fs::remove_file(directory.path().join(FILLER)).unwrap();
    store.close().await.unwrap();
    let lab = Lab::counting(IdempotencyLayer::new(engine.open(&path, Settings::default()).unwrap().any()));
    for number in 0..RUNS {
        assert!(lab.post(&format!("k{number}"), "a").await.is_replay());
    }
    drop((lab, small));
}

// "A full disk cost 5 of 1,564 acknowledged answers their record."
#[test]
fn below_the_mark_no_answer_is_given_that_is_not_recorded() {
    for engine in Engine::chosen() {
        let Some(came) = fill(engine, Act::FillBelowMark) else { return };
        assert_eq!((came.violations.len(), came.unsaved), (0, 0));
        assert!(came.full > 0 && came.acknowledged > 0, "it shows nothing");
    }
}
