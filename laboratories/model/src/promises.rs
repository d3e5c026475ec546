//! The properties that hold in every state, and those that must be seen in some state: without those a run of the model
//! shows nothing.

use stateright::{Model as _, Property};

use crate::process::At;
use crate::rows::Kept;
use crate::sights::Sight;
use crate::world::{Protocol, World};

macro_rules! never {
    ($($name:literal: $sight:ident),* $(,)?) => {
        [$(Property::always($name, |_: &Protocol, world: &World| !world.sights.has(Sight::$sight))),*]
    };
}

macro_rules! sometimes {
    ($($name:literal: $sight:ident),* $(,)?) => {
        [$(Property::sometimes($name, |_: &Protocol, world: &World| world.sights.has(Sight::$sight))),*]
    };
}

/// The properties, by their names in docs/design.md, section 1 or section 9.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always("one effect per key", one_effect),
        Property::always("no claim is without an owner", every_claim_has_its_run),
        Property::always("every end is a free key, an answer or an operation that is listed", every_end_is_good),
        Property::always("what is under way comes to an end", something_is_due),
    ];
    all.extend(never! {
        "the same answer": Contradiction,
        "nothing is said before it is durable": SaidBeforeDurable,
        "fences grow": FenceShrank,
        "a late outcome is never thrown away": ThrownAway,
        "what is completed does not change": CompletedChanged,
        "no process ends another's run": EndedAnothers,
        "who is taken over was marked dead": TakenAlive,
        "no answer of an earlier operation is told after a later one was claimed": EarlierAnswer,
        "what was forgotten is not written anew before it runs again": ForgottenRestored,
        "what was forgotten is not disputed where its tombstone is met": ForgottenDisputed,
        "no process tells what it knows to be forgotten": ForgottenTold,
        "a lost outcome is not taken for forgotten": LossUnseen,
    });
    all.extend(sometimes! {
        "an outcome is told": Told,
        "it is told again": Replayed,
        "it is told from memory": ToldFromMemory,
        "a late completion wins": LateCompletion,
        "an outcome is disputed": Dispute,
        "a row is busy": Busy,
        "a barrier is needed": BarrierNeeded,
        "a run is taken over": Takeover,
        "a failover loses a claim": LostClaim,
        "a failover loses an answer": LostAnswer,
        "a resend is recognised": ResendRecognised,
        "a claim comes after its release": LateClaimRefused,
        "a claim is taken back": ClaimTakenBack,
        "the application knows the outcome": Reconciled,
        "the application says that it may run again": RunAgain,
        "an operator settles it": SettledByHand,
        "a completion finds its claim lost": CompletedOverAbsent,
        "an older fence is refused downstream": RefusedDownstream,
        "an expired row is claimed over": ClaimedOverExpired,
        "a fence is above the clock": FenceAboveClock,
        "a session is renewed late": RenewedLate,
        "a handler is dropped": HandlerDropped,
        "a row is swept": Swept,
        "a restart shows what is not durable": ShownByRestart,
        "a record outlasts a database's clock that is ahead": OutlastsAWrongClock,
        "an outcome in memory is not told any more": NotTold,
        "all clocks are wrong together": WrongTogether,
        "what was not claimed as repeatable is not run again": NotRunAgain,
        "a claim without a run is over once its session says so": ClaimEndedByItsSession,
        "a run of a living process outlasts its bound": OutlastsItsBound,
        "an outcome that a failover has lost is put back": Restored,
        "an operation is forgotten": Forgotten,
        "a forgotten operation runs again": RunsAgain,
        "a forgotten operation runs again after a failover": RunsOnAnotherServer,
        "a copy of what was forgotten is told": CopyTold,
        "a copy of what was forgotten is dropped": CopyDropped,
        "a call waits until the row that it shows is durable": WaitsUntilDurable,
        "a failover loses a row before it is shown": LostBeforeShown,
        "what was forgotten is written anew, as the row of a later run has expired": RestoredAfterALaterRun,
        "what was forgotten is disputed, as the operation has run again": DisputedByALaterRun,
        "what was forgotten is disputed, as it was put back and forgotten meanwhile": DisputedByARace,
        "a process that was asked keeps its copy, as the operation has run again": AskedInVain,
    });
    all
}

/// An operation has one effect, and further ones only if they were allowed: by the policy of the run that is repeated,
/// by an operator, after the retention by the true time, or because of a loss. If all clocks of a process are wrong
/// together, nothing is promised.
fn one_effect(_: &Protocol, world: &World) -> bool {
    world.truths.iter().all(|truth| truth.effects.len() <= 1 + usize::from(truth.allowed))
}

/// Each running row of a living process belongs to work that is under way in that process.
fn every_claim_has_its_run(_: &Protocol, world: &World) -> bool {
    (0_u8..).zip(&world.truths).all(|(key, truth)| truth.is_lost || truth.has_vanished || world.has_its_run(key))
}

/// A retry runs or is answered, or an operator can settle the operation, whenever nothing is under way.
fn every_end_is_good(protocol: &Protocol, world: &World) -> bool {
    let of_operator = |key| At { process: protocol.processes, key, is_orphan: false };
    let is_good = |key| match world.read(protocol, of_operator(key)).map(|row| row.kept) {
        None | Some(Kept::Released | Kept::Completed(_)) => true,
        // A question about it has a bound.
        Some(Kept::Interrupted { .. }) => true,
        Some(Kept::Running) => world.seen_from_outside(protocol, key).is_some(),
    };
    let mut operations = (0_u8..).zip(&world.truths);
    !world.is_quiet() || operations.all(|(key, truth)| truth.is_lost || truth.has_vanished || is_good(key))
}

/// Nothing is stuck: work that is under way goes on, without a fault and without a request.
fn something_is_due(protocol: &Protocol, world: &World) -> bool {
    let mut events = Vec::new();
    protocol.actions(world, &mut events);
    world.is_quiet() || events.iter().any(|event| event.is_due())
}
