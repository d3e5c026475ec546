//! An application that is asked about operations that were interrupted, and says what the test wants.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::{ClaimPolicy, Reply};
use tower_idempotency::operations::Reconciliation;
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::Store;
use tower_idempotency::{IdempotencyLayer, OnInFlight};

use super::app::charge_print;
use super::steps::{Claimed, Hold, Steps as _, Wish, wish};
use super::time::SECOND;
use crate::Gate;

/// The application's answer about an operation of a layer.
pub type Verdict = Reconciled<Response<Full<Bytes>>>;

/// The questions that the application got so far. Clones share them.
#[derive(Clone, Default)]
pub struct Asked {
    questions: Arc<Mutex<Vec<InterruptedRun>>>,
}

impl Asked {
    /// Says at once: the first of `script` to the first question, and so on; the last to all that follow.
    pub fn says<O: Said>(&self, script: impl Into<Vec<Reconciled<O>>>) -> Reconciler<O> {
        let gate = Gate::default();
        gate.open();
        self.says_behind(&gate, script)
    }

    /// The same, from behind a gate.
    pub fn says_behind<O: Said>(&self, gate: &Gate, script: impl Into<Vec<Reconciled<O>>>) -> Reconciler<O> {
        let (questions, gate, script) = (Arc::clone(&self.questions), gate.clone(), script.into());
        Reconciler::new(move |run| {
            let mut questions = questions.lock().expect("nothing panics under this lock");
            let said = script[questions.len().min(script.len() - 1)].clone();
            questions.push(run);
            let gate = gate.clone();
            async move {
                gate.pass().await;
                said
            }
        })
    }

    pub fn questions(&self) -> Vec<InterruptedRun> {
        self.questions.lock().expect("nothing panics under this lock").clone()
    }

    pub fn times(&self) -> usize {
        self.questions().len()
    }
}

/// An outcome that can be said more than once.
pub trait Said: Clone + fmt::Debug + Send + Sync + 'static {}
impl<O: Clone + fmt::Debug + Send + Sync + 'static> Said for O {}

/// "It took place": answered 201 with this receipt.
pub fn found(receipt: impl Into<Bytes>) -> Verdict {
    let response = Response::builder().status(201).header("location", "/charges/17").body(Full::new(receipt.into()));
    Reconciled::Outcome(response.expect("a valid answer"))
}

/// A layer that asks.
pub fn asking<St: Store>(store: St, reconciler: Reconciler<Response<Full<Bytes>>>) -> IdempotencyLayer<St> {
    IdempotencyLayer::new(store).reconcile_with(reconciler)
}

/// Likewise, whose duplicates wait for as long as it takes.
pub fn patient<St: Store>(store: St, reconciler: Reconciler<Response<Full<Bytes>>>) -> IdempotencyLayer<St> {
    asking(store, reconciler).on_in_flight(OnInFlight::Wait(SECOND * 60))
}

/// The numbers of operations that were settled, that run again, and that are still unknown.
pub fn counted(sum: Reconciliation) -> (usize, usize, usize) {
    let Reconciliation { settled, run_again, unknown, .. } = sum;
    (settled, run_again, unknown)
}

/// An operation `post(key, "a")` that was begun and interrupted. It is forgotten after a day.
pub async fn leave_interrupted<St: Store>(store: &St, key: &str) -> Hold {
    leave_interrupted_under(ClaimPolicy::Refuse, store, key).await
}

/// The same, claimed under this policy.
pub async fn leave_interrupted_under<St: Store>(policy: ClaimPolicy, store: &St, key: &str) -> Hold {
    let wish = wish(key);
    let wish = Wish { policy, fingerprint: charge_print(&wish.id).with_credentials().finish(), ..wish };
    let Claimed::Fresh(hold) = store.claim(wish).await.expect("the store works") else { panic!("{key} is held") };
    let cut = store.interrupt(hold.id, hold.fence).await.expect("the store works");
    assert_eq!(cut, Reply::Taken);
    hold
}
