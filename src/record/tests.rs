use super::*;
use crate::key::Key;

const NOW: Timestamp = Timestamp::from_millis(1_000);
const DAY: Duration = Duration::from_secs(86_400);

fn id() -> RecordId {
    RecordId::new(None, &Key::new("k").unwrap())
}

fn wish(nonce: u8) -> Claim {
    let fingerprint = Fingerprint::of(b"m");
    Claim { id: id(), fingerprint, nonce: [nonce; 16], durable: true, interrupted_retention: DAY, patience: DAY }
}

fn run(fence: u64) -> (Record<&'static str>, Hold) {
    match claim(None, &wish(1), Fence(fence), NOW) {
        (Change::Put(record), Claimed::Fresh(hold)) => (record, hold),
        other => panic!("{other:?}"),
    }
}

fn completion(hold: Hold) -> Completion<&'static str> {
    let settlement = Settlement::Outcome("done");
    Completion { hold, fingerprint: Fingerprint::of(b"m"), settlement, retention: DAY }
}

#[test]
fn a_claim_sent_again_is_known_by_its_nonce_and_no_other_is() {
    let (record, hold) = run(1);
    let again = claim(Some(record.clone()), &wish(1), Fence(2), NOW);
    assert_eq!(again, (Change::Nothing, Claimed::Fresh(hold)));
    let other = claim(Some(record.clone()), &wish(2), Fence(2), NOW);
    assert_eq!(other, (Change::Nothing, Claimed::Held(record)));
}

#[test]
fn a_completion_sent_again_is_answered_as_before() {
    let (record, hold) = run(1);
    let (Change::Put(done), Settled::Done) = complete(Some(record), completion(hold), NOW) else { panic!() };
    assert_eq!(complete(Some(done), completion(hold), NOW), (Change::Nothing, Settled::Done));
}

#[test]
fn an_older_fence_changes_nothing() {
    let (record, hold) = run(1);
    let (Change::Put(cut), Settled::Done) = interrupt(Some(record), Fence(1), None, NOW) else { panic!() };
    let (Change::Put(second), Some(new)) = reclaim(Some(cut), &wish(2), Fence(1), Fence(2)) else { panic!() };
    assert_eq!((new.fence, new.attempt), (Fence(2), 2));
    let superseded = (Change::Nothing, Settled::Superseded);
    assert_eq!(complete(Some(second.clone()), completion(hold), NOW), superseded);
    assert_eq!(release(Some(second.clone()), Fence(1)), superseded);
    assert_eq!(interrupt(Some(second.clone()), Fence(1), None, NOW), superseded);
    assert_eq!(resolve(Some(second.clone()), Fence(1), Fence(9), None, NOW), superseded);
    assert_eq!(reclaim(Some(second), &wish(3), Fence(1), Fence(3)), (Change::Nothing, None));
}

#[test]
fn a_run_without_a_record_completes_only_where_there_is_none() {
    let (record, hold) = run(1);
    let unrecorded = Hold { fence: Fence(2), recorded: false, ..hold };
    assert!(matches!(complete(None, completion(unrecorded), NOW), (Change::Put(_), Settled::Done)));
    let superseded = (Change::Nothing, Settled::Superseded);
    assert_eq!(complete(Some(record), completion(unrecorded), NOW), superseded);
    assert_eq!(complete(None, completion(hold), NOW), superseded);
}

#[test]
fn a_running_record_is_settled_by_its_run_alone() {
    let (record, _) = run(1);
    assert_eq!(resolve(Some(record), Fence(1), Fence(9), None, NOW), (Change::Nothing, Settled::Superseded));
}

#[test]
fn retention_starts_where_the_run_ends_and_a_running_record_never_expires() {
    let (record, hold) = run(1);
    assert_eq!(record.clone().live(Timestamp::from_millis(u64::MAX)), Some(record.clone()));
    let (Change::Put(done), _) = complete(Some(record), completion(hold), NOW) else { panic!() };
    let end = NOW.plus(DAY);
    assert_eq!(done.clone().live(Timestamp::from_millis(end.as_millis() - 1)), Some(done.clone()));
    assert_eq!(done.live(end), None);
}

// What an operator says must not stand under keys that an earlier run's pieces were written under.
#[test]
fn an_outcome_that_somebody_settles_with_is_under_a_new_fence() {
    let (record, hold) = run(1);
    let (Change::Put(interrupted), Settled::Done) = interrupt(Some(record), hold.fence, None, NOW) else {
        panic!("it is running")
    };
    let outcome = Some(("told", DAY));
    let (Change::Put(settled), Settled::Done) = resolve(Some(interrupted), hold.fence, Fence(9), outcome, NOW) else {
        panic!("it is interrupted")
    };
    assert_eq!(settled.fence, Fence(9));
}
