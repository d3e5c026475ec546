//! A store's transitions, each by its name.

use std::future::Future;
use std::time::Duration;

use tower_idempotency::internals::{
    Cause, Claim, ClaimPolicy, Completion, Fence, Operation, Origin, ReclaimReason, Record, Reply, Resolution, Stepped,
    Transition,
};
use tower_idempotency::store::{Store, StoreError};
use tower_idempotency::{Fingerprint, Key, RecordId};

use super::time::{DAY, HOUR};

/// A claim, and of what.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    pub id: RecordId,
    pub fingerprint: Fingerprint,
    pub policy: ClaimPolicy,
    pub may_repeat: bool,
    pub bound: Duration,
    pub interrupted_retention: Duration,
    pub timeout: Duration,
}

impl Wish {
    /// One that leaves a trace, with a day for everything.
    pub fn new(id: RecordId, fingerprint: Fingerprint) -> Self {
        let (bound, interrupted_retention, timeout) = (DAY, DAY, DAY);
        let policy = ClaimPolicy::Refuse;
        Self { id, fingerprint, policy, may_repeat: false, bound, interrupted_retention, timeout }
    }

    pub fn claim(self) -> Claim {
        let Self { id, fingerprint, policy, may_repeat, bound, interrupted_retention, timeout } = self;
        let operation = Operation { id, fingerprint, origin: Origin::default() };
        Claim { operation, policy, may_repeat, bound, interrupted_retention, timeout }
    }
}

/// The same, of `key`.
pub fn wish(key: &str) -> Wish {
    Wish::new(RecordId::new(None, &Key::new(key).expect("a valid key")), Fingerprint::of(b"m"))
}

/// The right of a run, and the operation that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    pub id: RecordId,
    pub fence: Fence,
    pub attempt: u32,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    Fresh(Hold),
    Held(Record),
}

impl Claimed {
    fn of(id: RecordId, applied: Stepped) -> Self {
        let record = applied.record.expect("there is a record after a claim");
        match applied.reply {
            Reply::Taken => Self::Fresh(Hold { id, fence: record.fence, attempt: record.attempt }),
            Reply::Refused => Self::Held(record),
        }
    }
}

type StoreResult<T> = Result<T, StoreError>;

/// Each takes effect when it is called.
pub trait Steps: Store {
    fn claim(&self, wish: Wish) -> impl Future<Output = StoreResult<Claimed>> + Send {
        let applied = self.apply(wish.id, Transition::Claim(wish.claim()));
        async move { Ok(Claimed::of(wish.id, applied.await?)) }
    }

    /// Because the application was asked.
    fn reclaim(&self, wish: Wish, fence: Fence) -> impl Future<Output = StoreResult<Option<Hold>>> + Send {
        let applied = self.apply(wish.id, Transition::Reclaim(wish.claim(), fence, ReclaimReason::Verdict));
        async move {
            Ok(match applied.await? {
                Stepped { reply: Reply::Taken, record: Some(record) } => {
                    Some(Hold { id: wish.id, fence: record.fence, attempt: record.attempt })
                }
                _ => None,
            })
        }
    }

    fn inquire(&self, id: RecordId, fence: Fence) -> impl Future<Output = StoreResult<Option<Fence>>> + Send {
        let applied = self.apply(id, Transition::Inquire { fence, bound: Duration::from_secs(1) });
        async move {
            let Stepped { reply, record } = applied.await?;
            Ok(record.filter(|_| reply == Reply::Taken).map(|record| record.fence))
        }
    }

    fn complete(&self, completion: Completion) -> impl Future<Output = StoreResult<Reply>> + Send {
        reply(self.apply(completion.operation.id, Transition::Complete(completion)))
    }

    fn release(&self, id: RecordId, fence: Fence) -> impl Future<Output = StoreResult<Reply>> + Send {
        reply(self.apply(id, Transition::Release(fence)))
    }

    fn interrupt(&self, id: RecordId, fence: Fence) -> impl Future<Output = StoreResult<Reply>> + Send {
        reply(self.apply(id, Transition::Interrupt { fence, cause: Cause::Unknown, lost: None }))
    }

    fn settle(&self, id: RecordId, fence: Fence, how: Resolution) -> impl Future<Output = StoreResult<Reply>> + Send {
        reply(self.apply(id, Transition::Resolve(fence, how, HOUR)))
    }
}

impl<St: Store> Steps for St {}

async fn reply(applied: impl Future<Output = StoreResult<Stepped>>) -> StoreResult<Reply> {
    Ok(applied.await?.reply)
}
