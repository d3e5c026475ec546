//! The cases in which a transition is taken, and what it leaves.

use futures_util::future::join_all;
use tower_idempotency::RecordId;
use tower_idempotency::internals::{
    Current, Draft, Edit, Fence, Owner, Record, Reply, State, Stepped, Transition, next,
};
use tower_idempotency::store::Store;

use crate::fresh::fresh_id;
use crate::store::rule::Rule;
use crate::store::sample::{
    all_under, answer, claim, complete, consume, free, hold, inquire, interrupt, name_of, reclaim, repeatable, settle,
};
use crate::store::subject::StoreSubject;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InitialRecord {
    Nothing,
    Running,
    Interrupted,
    Repeatable,
    Answered,
    Asked,
    TakenOver,
    Completed,
    Consumed,
    CompletedLate,
    Settled,
    Released,
    Forgotten,
}

impl InitialRecord {
    const ALL: [Self; 13] = [
        Self::Nothing,
        Self::Running,
        Self::Interrupted,
        Self::Repeatable,
        Self::Answered,
        Self::Asked,
        Self::TakenOver,
        Self::Completed,
        Self::Consumed,
        Self::CompletedLate,
        Self::Settled,
        Self::Released,
        Self::Forgotten,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing is there",
            Self::Running => "it runs",
            Self::Interrupted => "it was interrupted",
            Self::Repeatable => "it was interrupted and may be repeated",
            Self::Answered => "its client was answered that the effect is unknown",
            Self::Asked => "it is asked about",
            Self::TakenOver => "it runs for the second time",
            Self::Completed => "it has an outcome",
            Self::Consumed => "its outcome was not stored",
            Self::CompletedLate => "it was completed while it was asked about",
            Self::Settled => "it was settled with an outcome",
            Self::Released => "it was released",
            Self::Forgotten => "it was forgotten",
        }
    }

    /// Leaves it there, and gives the fences that it got.
    async fn leave<St: Store>(self, rule: &Rule<'_, St>, id: RecordId) -> Vec<Fence> {
        if self == Self::Nothing {
            return Vec::new();
        }
        let run = match self {
            Self::Repeatable => rule.made(id, &Transition::Claim(repeatable())).await,
            _ => rule.claimed(id).await,
        };
        let (first, hold) = (run.fence, hold(id, &run));
        let is_ended_by = |transition| async move { rule.taken(id, &transition).await.map(|record| record.fence) };
        let then = match self {
            Self::Nothing | Self::Running => None,
            Self::Completed => is_ended_by(complete(hold, "its outcome")).await,
            Self::Consumed => is_ended_by(consume(hold, 201)).await,
            Self::Released => is_ended_by(Transition::Release(first)).await,
            Self::Answered => is_ended_by(answer(first, 504)).await,
            Self::Interrupted
            | Self::Repeatable
            | Self::Asked
            | Self::TakenOver
            | Self::CompletedLate
            | Self::Settled
            | Self::Forgotten => {
                is_ended_by(interrupt(first)).await;
                match self {
                    Self::Asked => is_ended_by(inquire(first)).await,
                    Self::TakenOver => is_ended_by(reclaim(first)).await,
                    Self::Settled => is_ended_by(settle(first, "what the operator found")).await,
                    Self::Forgotten => is_ended_by(free(first)).await,
                    Self::CompletedLate => {
                        let asked = is_ended_by(inquire(first)).await;
                        is_ended_by(complete(hold, "late")).await;
                        asked
                    }
                    _ => None,
                }
            }
        };
        let mut fences = vec![first];
        fences.extend(then);
        fences.dedup();
        fences
    }
}

/// A transition that was tried.
struct Trial {
    initial: InitialRecord,
    fences: Vec<Fence>,
    transition: Transition,
    before: Option<Record>,
    applied: Stepped,
    after: Option<Record>,
}

impl Trial {
    fn words(&self) -> String {
        let Self { initial, transition, before, .. } = self;
        format!("to {} where {}: {transition:?} over {before:?}", name_of(transition), initial.words())
    }

    /// Returns what the protocol says.
    fn should<St: Store>(&self, store: &St) -> (Edit<bytes::Bytes>, Reply) {
        // A tombstone keeps the fence of the run that was released or forgotten.
        let is_tombstone =
            matches!(self.initial, InitialRecord::Released | InitialRecord::Forgotten) && !store.is_exclusive();
        let tombstone = self.fences.first().filter(|_| is_tombstone);
        let current = tombstone.map_or(Current::from(self.before.as_ref()), |fence| Current::Released(*fence));
        next(current, self.transition.clone())
    }
}

/// Each transition, under each fence that the operation got and under one that it never got, over all that can be
/// there. Time passes between what was there and what is tried.
async fn trials<St: Store>(rule: &Rule<'_, St>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for initial in InitialRecord::ALL {
        let count = 1 + 3 * all_under(fresh_id(), Fence(0)).len();
        let left = join_all((0..count).map(|which| async move {
            let id = fresh_id();
            let fences = initial.leave(rule, id).await;
            (which, id, fences)
        }));
        let left = left.await;
        rule.tick().await;
        let tried = left.into_iter().map(|(which, id, fences)| async move {
            let never = Fence(fences.last().map_or(0, |fence| fence.0) + 1_000_000);
            let transition = match which.checked_sub(1) {
                None => claim(),
                Some(which) => {
                    let fence = fences.iter().copied().chain([never]).nth(which % 3)?;
                    all_under(id, fence).swap_remove(which / 3)
                }
            };
            let before = rule.load(id).await;
            let applied = rule.apply(id, &transition).await;
            let after = rule.load(id).await;
            Some(Trial { initial, fences, transition, before, applied, after })
        });
        trials.extend(join_all(tried).await.into_iter().flatten());
    }
    trials
}

/// The cases: the record × the transition × the fence. The transition is taken in exactly the cases that
/// [`internals::next`](crate::internals::next) says, and the record is what it says.
pub(crate) async fn each_transition_does_what_the_protocol_says<St: Store>(subject: &StoreSubject<St>) {
    let advice = "let `next` decide, in the atomic step that writes, over the record as this process sees it in that step; and \
                  write the whole draft";
    let rule = Rule::new(subject, "each_transition_does_what_the_protocol_says", advice);
    for trial in trials(&rule).await {
        let (change, reply) = trial.should(&*subject.store);
        let Stepped { reply: was, record } = &trial.applied;
        rule.check(*was == reply, || format!("{was:?}, and {reply:?} is right, was answered {}", trial.words()));
        rule.check(*record == trial.after, || {
            format!("{record:?} was answered {}; load says {:?}", trial.words(), trial.after)
        });
        match change {
            Edit::Nothing => {}
            Edit::Release => rule.check(record.is_none(), || format!("{record:?} is left {}", trial.words())),
            Edit::Put(draft) => {
                let is_so = record.as_ref().is_some_and(|record| is_draft(record, &draft, &trial.fences));
                rule.check(is_so, || format!("{record:?} was made of {draft:?} {}", trial.words()));
            }
        }
    }
}

/// Returns whether a record is what the protocol wanted written, apart from its times. A new fence is above all before.
fn is_draft(record: &Record, draft: &Draft<bytes::Bytes>, fences: &[Fence]) -> bool {
    let Draft { fence, owned, fingerprint, attempt, origin, state, .. } = draft;
    let is_fence = match fence {
        Some(fence) => record.fence == *fence,
        None => fences.iter().all(|older| *older < record.fence),
    };
    let is_run = owned.is_some() && matches!(state, State::Running { .. });
    let owner = if is_run { Owner::Here } else { Owner::None };
    is_fence
        && (record.fingerprint, record.attempt, record.owner) == (*fingerprint, *attempt, owner)
        && (&record.origin, &record.state) == (origin, state)
}

/// A transition that is refused, or was taken before, leaves the record as it is, in every field, and is answered that
/// record.
pub(crate) async fn a_refused_transition_changes_nothing<St: Store>(subject: &StoreSubject<St>) {
    let advice = "write nothing where `next` says `Edit::Nothing`, and answer the record as it is";
    let rule = Rule::new(subject, "a_refused_transition_changes_nothing", advice);
    let mut count = 0;
    for trial in trials(&rule).await {
        let (change, _) = trial.should(&*subject.store);
        if change != Edit::Nothing {
            continue;
        }
        count += 1;
        rule.check(trial.before == trial.after, || format!("the record is {:?} after {}", trial.after, trial.words()));
        let answered = &trial.applied.record;
        rule.check(*answered == trial.before, || format!("{answered:?} was answered {}", trial.words()));
    }
    rule.check(count > 100, || format!("only {count} transitions were refused"));
}

/// Trap 4: an earlier holder neither ends nor frees what is another's now.
pub(crate) async fn an_earlier_holder_changes_nothing<St: Store>(subject: &StoreSubject<St>) {
    let advice = "compare the fence that a transition names with the record's, in the step that writes";
    let rule = Rule::new(subject, "an_earlier_holder_changes_nothing", advice);
    let id = fresh_id();
    let first = rule.claimed(id).await;
    rule.made(id, &interrupt(first.fence)).await;
    let second = rule.made(id, &reclaim(first.fence)).await;
    rule.check(first.fence < second.fence && second.attempt == 2, || format!("{second:?} took over {first:?}"));
    for late in all_under(id, first.fence) {
        rule.refused(id, &late).await;
        let found = rule.load(id).await;
        rule.check(found.as_ref() == Some(&second), || {
            format!("to {} by an earlier holder made {found:?} of {second:?}", name_of(&late))
        });
    }
    rule.made(id, &complete(hold(id, &second), "in time")).await;
    for late in all_under(id, first.fence) {
        rule.refused(id, &late).await;
    }
    let outcome = rule.load_outcome(&subject.store, id).await;
    rule.check(outcome.as_deref() == Some(b"in time"), || format!("its outcome is {outcome:?}"));
}
