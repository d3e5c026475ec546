//! The states of a record: the function `next`, which decides for every store which one follows.

use std::time::Duration;

use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{
    Cause, Claim, ClaimPolicy, Completion, Current, Described, Edit, Fence, Hold, Lost, Operation, Origin, Owner,
    ReclaimReason, Record, Reply, Resolution, RunResult, State, Transition, next,
};
use tower_idempotency::{Fingerprint, Key, RecordId};

const NOW: Timestamp = Timestamp::from_millis(1_000);
const DAY: Duration = Duration::from_secs(86_400);

type Held = Option<Record<&'static str>>;

fn claim() -> Claim {
    let (fingerprint, policy) = (Fingerprint::of(b"m"), ClaimPolicy::Refuse);
    let (may_repeat, bound, interrupted_retention, timeout) = (false, DAY, DAY, DAY);
    let operation = Operation { origin: Origin::default(), ..operation(fingerprint) };
    Claim { operation, policy, may_repeat, bound, interrupted_retention, timeout }
}

/// Applies a transition at `NOW`; a record that needs a new fence gets `fence`.
fn step(current: &Held, fence: u64, transition: Transition<&'static str>) -> (Held, Reply) {
    let (change, reply) = next(Current::from(current.as_ref()), transition);
    let after = match change {
        Edit::Nothing => current.clone(),
        Edit::Put(draft) => Some(draft.stamp(current.as_ref(), Fence(fence), NOW, NOW)),
        Edit::Release => None,
    };
    (after, reply)
}

fn taken(current: &Held, fence: u64, transition: Transition<&'static str>) -> Held {
    let (after, reply) = step(current, fence, transition);
    assert_eq!(reply, Reply::Taken);
    after
}

fn refused(current: &Held, transition: Transition<&'static str>) {
    assert_eq!(step(current, 99, transition), (current.clone(), Reply::Refused));
}

/// The origin of which an end says, for a record that is written anew.
fn origin() -> Origin {
    Origin::of(Described { label: Some("a charge".to_owned()), ..Described::default() })
}

fn operation(fingerprint: Fingerprint) -> Operation {
    Operation { id: RecordId::new(None, &Key::new("k").unwrap()), fingerprint, origin: origin() }
}

fn complete(fence: u64) -> Transition<&'static str> {
    let (hold, result) = (Hold { fence: Fence(fence), attempt: 1 }, RunResult::Outcome("done"));
    Transition::Complete(Completion {
        operation: operation(Fingerprint::of(b"m")),
        hold,
        result,
        retention: DAY,
        began: None,
    })
}

fn interrupt(fence: u64) -> Transition<&'static str> {
    Transition::Interrupt { fence: Fence(fence), cause: Cause::Unknown, lost: None }
}

fn inquire(fence: u64) -> Transition<&'static str> {
    Transition::Inquire { fence: Fence(fence), bound: DAY }
}

fn settle(fence: u64) -> Transition<&'static str> {
    Transition::Resolve(Fence(fence), Resolution::Outcome("told"), DAY)
}

fn reclaim(fence: u64) -> Transition<&'static str> {
    Transition::Reclaim(claim(), Fence(fence), ReclaimReason::Verdict)
}

fn free(fence: u64) -> Transition<&'static str> {
    Transition::Resolve(Fence(fence), Resolution::Release, DAY)
}

fn forget(fence: u64) -> Transition<&'static str> {
    Transition::Resolve(Fence(fence), Resolution::Forget, DAY)
}

fn forget_answer(fence: u64) -> Transition<&'static str> {
    Transition::Resolve(Fence(fence), Resolution::ForgetAnswer { status: 201 }, DAY)
}

fn running() -> Held {
    taken(&None, 1, Transition::Claim(claim()))
}

fn interrupted() -> Held {
    taken(&running(), 0, interrupt(1))
}

#[test]
fn an_operation_that_has_a_record_is_claimed_by_nobody() {
    for held in [running(), interrupted(), taken(&running(), 0, complete(1))] {
        refused(&held, Transition::Claim(claim()));
    }
}

#[test]
fn what_ends_a_run_is_answered_alike_when_it_is_sent_again() {
    let done = taken(&running(), 0, complete(1));
    assert_eq!(taken(&done, 0, complete(1)), done);
    assert_eq!(taken(&interrupted(), 0, interrupt(1)), interrupted());
    assert_eq!(taken(&None, 0, Transition::Release(Fence(1))), None);
    let settled = taken(&interrupted(), 2, settle(1));
    refused(&settled, settle(1));
    refused(&None, free(1));
    refused(&None, forget(1));
}

#[test]
fn an_older_fence_changes_nothing() {
    let second = taken(&interrupted(), 2, reclaim(1));
    let record = second.as_ref().unwrap();
    assert_eq!((record.fence, record.attempt), (Fence(2), 2));
    for old in [complete(1), Transition::Release(Fence(1)), interrupt(1), settle(1), reclaim(1), inquire(1)] {
        refused(&second, old);
    }
}

#[test]
fn a_running_record_is_settled_and_taken_over_by_nobody() {
    for transition in [settle(1), free(1), forget(1), reclaim(1), inquire(1)] {
        refused(&running(), transition);
    }
}

// "A late outcome is never thrown away": the run was thought dead, and the reconciler has even been asked about it.
#[test]
fn a_run_that_was_thought_dead_still_says_how_it_ended() {
    let asked = taken(&interrupted(), 2, inquire(1));
    for thought_dead in [interrupted(), asked.clone(), running().map(|run| run.lapse(NOW, Cause::ProcessEnded))] {
        let done = taken(&thought_dead, 0, complete(1)).unwrap();
        assert_eq!(done.state, State::Completed { outcome: "done" });
        assert_eq!(done.fence, thought_dead.unwrap().fence, "no fence ever shrinks");
    }
    // The reply to the question comes too late.
    for verdict in [settle(2), reclaim(2)] {
        refused(&taken(&asked, 0, complete(1)), verdict);
    }
}

#[test]
fn an_outcome_whose_claim_was_lost_is_recorded_but_not_over_what_somebody_forgot_or_took_over() {
    let done = taken(&None, 0, complete(7)).unwrap();
    assert_eq!((done.fence, done.state), (Fence(7), State::Completed { outcome: "done" }));
    assert_eq!(done.origin, origin());
    for forgotten in [7, 8] {
        assert_eq!(next(Current::Released(Fence(forgotten)), complete(7)), (Edit::Nothing, Reply::Refused));
    }
    // The tombstone is older than the claim, so the claim was lost.
    assert!(matches!(next(Current::Released(Fence(6)), complete(7)), (Edit::Put(_), Reply::Taken)));
    refused(&running(), complete(7));
}

// Seeded faults: a record is replaced that is done, later, of a later attempt, or began at another time; the end of a
// run replaces one.
#[test]
fn an_outcome_that_is_put_back_replaces_what_was_there_before_it_and_nothing_else() {
    let put_back = |began| {
        let Transition::Complete(completion) = complete(7) else { panic!("it is an end") };
        Transition::Complete(Completion { began: Some(began), ..completion })
    };
    for older in [running(), interrupted()] {
        let began = older.as_ref().unwrap().began;
        let done = taken(&older, 0, put_back(began)).unwrap();
        assert_eq!((done.fence, done.began, done.state), (Fence(7), began, State::Completed { outcome: "done" }));
        // With a clock that was ahead, a later run of the key has a smaller fence.
        refused(&older, put_back(began.plus(DAY)));
        refused(&older, complete(7));
        refused(&older.clone().map(|record| Record { attempt: 2, ..record }), put_back(began));
        refused(&older.map(|record| Record { fence: Fence(8), ..record }), put_back(began));
    }
    let done = taken(&running(), 0, complete(1));
    refused(&done, put_back(done.as_ref().unwrap().began));
}

#[test]
fn a_run_whose_claim_was_lost_is_interrupted_but_not_over_what_somebody_forgot_or_took_over() {
    let (fingerprint, policy) = (Fingerprint::of(b"m"), ClaimPolicy::Ask);
    let lost = Some(Lost { operation: operation(fingerprint), attempt: 2, policy, retention: DAY });
    let interrupt = || Transition::Interrupt { fence: Fence(7), cause: Cause::Answered(502), lost: lost.clone() };
    let cut = taken(&None, 0, interrupt()).unwrap();
    assert_eq!((cut.fence, cut.attempt, cut.expires), (Fence(7), 2, Some(NOW.plus(DAY))));
    assert_eq!(cut.origin, origin());
    assert_eq!(cut.state, State::Interrupted { policy, run: Fence(7), cause: Cause::Answered(502) });
    assert_eq!(taken(&Some(cut.clone()), 0, interrupt()), Some(cut), "it is sent again");
    assert!(matches!(next::<()>(Current::Released(Fence(6)), interrupt().map(|_| ())), (Edit::Put(_), Reply::Taken)));
    assert_eq!(next::<()>(Current::Released(Fence(7)), interrupt().map(|_| ())), (Edit::Nothing, Reply::Refused));
    // With a clock that is ahead, it may be the run of a process that lives.
    for other in [running(), interrupted(), taken(&running(), 0, complete(1))] {
        refused(&other, interrupt());
    }
    refused(&None, self::interrupt(7));
}

#[test]
fn trap_74_a_question_changes_the_fence_and_nothing_else() {
    let before = interrupted().unwrap();
    let asked = taken(&Some(before.clone()), 2, inquire(1)).unwrap();
    assert_eq!((asked.fence, asked.owner), (Fence(2), Owner::Here));
    assert_eq!(Record { fence: before.fence, owner: before.owner, ..asked.clone() }, before);
    refused(&Some(asked), inquire(1));
}

// If the application answers "it took place", the record must still be there; otherwise the operation would run again.
#[test]
fn a_record_outlives_the_question_that_is_asked_about_it() {
    let soon = NOW.plus(Duration::from_secs(3));
    let about_to_expire = interrupted().map(|record| Record { expires: Some(soon), ..record });
    let asked = taken(&about_to_expire, 2, inquire(1)).unwrap();
    assert_eq!(asked.expires, Some(NOW.plus(DAY)));
}

#[test]
fn while_another_process_asks_nobody_takes_the_operation_over_and_an_operator_still_settles_it() {
    let asked = taken(&interrupted(), 2, inquire(1)).map(|record| Record { owner: Owner::Elsewhere, ..record });
    for transition in [inquire(2), reclaim(2)] {
        refused(&asked, transition);
    }
    assert!(matches!(step(&asked, 3, settle(2)), (Some(_), Reply::Taken)));
}

#[test]
fn nobody_interrupts_a_run_of_another_process() {
    let elsewhere = running().map(|record| Record { owner: Owner::Elsewhere, ..record });
    refused(&elsewhere, interrupt(1));
}

// An operator's outcome must not use the keys of the chunks that an earlier run wrote.
#[test]
fn an_outcome_that_somebody_settles_with_is_under_a_new_fence() {
    assert_eq!(taken(&interrupted(), 9, settle(1)).unwrap().fence, Fence(9));
}

#[test]
fn retention_starts_where_the_run_ends_and_a_running_record_never_expires() {
    let run = running().unwrap();
    assert_eq!(run.clone().live(Timestamp::from_millis(u64::MAX)), Some(run.clone()));
    let done = taken(&Some(run), 0, complete(1)).unwrap();
    let end = NOW.plus(DAY);
    assert_eq!(done.clone().live(Timestamp::from_millis(end.as_millis() - 1)), Some(done.clone()));
    assert_eq!(done.live(end), None);
}

#[test]
fn trap_02_the_first_attempt_says_when_an_operation_began_and_each_state_since_when_it_is() {
    let later = |held: &Held, by| {
        let move_back = |time: Timestamp| Timestamp::from_millis(time.as_millis() - by);
        held.clone().map(|record| Record { began: move_back(record.began), since: move_back(record.since), ..record })
    };
    let cut = taken(&later(&running(), 10), 0, interrupt(1)).unwrap();
    assert_eq!((cut.began.as_millis(), cut.since), (990, NOW));
    let asked = taken(&later(&Some(cut), 10), 2, inquire(1)).unwrap();
    assert_eq!((asked.began.as_millis(), asked.since.as_millis()), (980, 990));
    let again = taken(&Some(asked), 3, reclaim(2)).unwrap();
    assert_eq!((again.began.as_millis(), again.since, again.expires), (980, NOW, None));
}

const POLICIES: [ClaimPolicy; 4] = [ClaimPolicy::Unreadable, ClaimPolicy::Refuse, ClaimPolicy::Ask, ClaimPolicy::Rerun];

fn claimed_under(policy: ClaimPolicy) -> Held {
    taken(&None, 1, Transition::Claim(Claim { policy, ..claim() }))
}

fn policy_of(held: &Held) -> ClaimPolicy {
    match held.as_ref().unwrap().state {
        State::Running { policy, .. } | State::Interrupted { policy, .. } => policy,
        State::Completed { .. } | State::Consumed { .. } => panic!("{held:?} is over"),
    }
}

#[test]
fn by_policy_only_what_was_claimed_under_rerun_runs_again_and_by_verdict_all_does() {
    for policy in POLICIES {
        for now in POLICIES {
            let by = |reason| Transition::Reclaim(Claim { policy: now, ..claim() }, Fence(1), reason);
            let cut = taken(&claimed_under(policy), 0, interrupt(1));
            let lapsed = claimed_under(policy).map(|run| run.lapse(NOW, Cause::ProcessEnded));
            for held in [cut, lapsed] {
                if policy == ClaimPolicy::Rerun {
                    assert_eq!(policy_of(&taken(&held, 2, by(ReclaimReason::Policy))), now);
                } else {
                    refused(&held, by(ReclaimReason::Policy));
                }
                assert_eq!(policy_of(&taken(&held, 2, by(ReclaimReason::Verdict))), now, "a reclaim writes its own");
            }
        }
    }
}

#[test]
fn a_record_keeps_the_policy_of_its_latest_claim() {
    for policy in POLICIES {
        let run = claimed_under(policy);
        assert_eq!(policy_of(&run), policy);
        let answered = Transition::Interrupt { fence: Fence(1), cause: Cause::Answered(504), lost: None };
        let lost = Lost { operation: operation(Fingerprint::of(b"m")), attempt: 1, policy, retention: DAY };
        let lost = Transition::Interrupt { fence: Fence(1), cause: Cause::Unknown, lost: Some(lost) };
        for cut in [taken(&run, 0, interrupt(1)), taken(&run, 0, answered), taken(&None, 0, lost)] {
            assert_eq!(policy_of(&cut), policy);
            assert_eq!(policy_of(&taken(&cut, 2, inquire(1))), policy, "a question is no claim");
        }
        assert_eq!(policy_of(&run.map(|run| run.lapse(NOW, Cause::ProcessEnded))), policy);
    }
}

// Seeded faults: the record gets a new fence, so that the late copy is refused; it gets a new time, or a new expiry.
#[test]
fn the_answer_of_a_completed_operation_is_forgotten_and_the_fact_is_not() {
    let done = taken(&running(), 0, complete(1));
    let (change, reply) = next(Current::from(done.as_ref()), forget_answer(1));
    let (Edit::Put(draft), Reply::Taken) = (change, reply) else { panic!("it is to be forgotten") };
    let later = NOW.plus(DAY / 2);
    let forgotten = Some(draft.stamp(done.as_ref(), Fence(9), later, later));
    let fact = done.clone().map(|done| Record { state: State::Consumed { status: 201 }, ..done });
    assert_eq!(forgotten, fact);
    // A late copy of the run's end.
    assert_eq!(taken(&fact, 0, complete(1)), fact);
    refused(&fact, forget_answer(1));
    refused(&fact, Transition::Claim(claim()));
    assert_eq!(taken(&fact, 0, forget(1)), None);
    refused(&done, forget_answer(2));
    for held in [None, running(), interrupted()] {
        refused(&held, forget_answer(1));
    }
}
