//! Tests claims of an embedded store, below the slots of a process, which would refuse the second one by themselves.

use std::time::Duration;

use tower_idempotency::engine::ClaimPolicy;
use tower_idempotency::internals::{
    Claim, Operation, Origin, Records as _, Reply, Resolution, State, Stepped, Transition,
};
use tower_idempotency::store::Store as _;
use tower_idempotency::{AnyStore, Fingerprint, RecordId};

use super::claims::{Fault, Seen, new_id};
use crate::address::Directory;
use crate::open::opened;

/// The record expires by itself if this process is killed.
const KEPT: Duration = Duration::from_secs(60);

/// Claims a new key twice, opens the store again, and claims it once more. Leaves nothing.
pub(super) async fn test(store: AnyStore, directory: &Directory) -> Result<Seen, Fault> {
    let id = new_id();
    let broken = |check, fault: &str| Err(Fault::Broken(check, fault.to_owned()));
    let Stepped { reply: Reply::Taken, record: Some(taken) } = store.apply(id, claim(id)).await? else {
        return broken("claim", "a claim of a new key was not granted");
    };
    if is_granted(&store.apply(id, claim(id)).await?) {
        return broken("claim twice", "the second claim of the same key was granted too");
    }
    let mut seen = vec![("claim twice", "the second claim of a key is refused")];
    // As a process that ends before its client has an answer.
    store.close().await?;
    drop(store);
    let store = opened(directory).await?;
    match store.load(id).await? {
        Some(record) if record.fence == taken.fence && matches!(record.state, State::Interrupted { .. }) => {}
        _ => return broken("lost answer", "a claim whose process has ended is not there, or not shown as interrupted"),
    }
    if is_granted(&store.apply(id, claim(id)).await?) {
        return broken("lost answer", "a key was granted again, though its run was interrupted");
    }
    seen.push(("lost answer", "a claim whose process has ended is there, and is not granted again"));
    store.apply(id, Transition::Resolve(taken.fence, Resolution::Release, KEPT)).await?;
    if store.load(id).await?.is_some() {
        return broken("end", "a key that was released is still taken");
    }
    store.close().await?;
    Ok(seen)
}

fn is_granted(applied: &Stepped) -> bool {
    applied.reply == Reply::Taken
}

fn claim(id: RecordId) -> Transition {
    Transition::Claim(Claim {
        operation: Operation { id, fingerprint: Fingerprint::of(b"idem doctor"), origin: Origin::default() },
        policy: ClaimPolicy::Refuse,
        may_repeat: false,
        bound: KEPT,
        interrupted_retention: KEPT,
        timeout: KEPT,
    })
}
