//! Calls, and answers, that are held up until a test lets them go on.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};
use tower_idempotency_shared::BackendError;

use super::call::Call;
use super::locked::lock;

/// Something that happens when it is let go on.
pub(super) type Act = Box<dyn FnOnce() + Send>;

/// Calls of one kind, or their answers, are held up in the order in which they came until this is dropped.
#[derive(Debug)]
#[must_use = "they go on as soon as this is dropped"]
pub struct Hold {
    queue: Arc<Queue>,
}

/// The calls, or answers, that are held up.
pub(super) struct Queue {
    call: Call,
    // `None`: nothing is held up any more.
    acts: Mutex<Option<VecDeque<Act>>>,
    arrived: Notify,
}

impl Queue {
    pub(super) fn new(call: Call) -> Arc<Self> {
        Arc::new(Self { call, acts: Mutex::new(Some(VecDeque::new())), arrived: Notify::new() })
    }

    pub(super) fn is_for(&self, call: Call) -> bool {
        self.call == call && lock(&self.acts).is_some()
    }

    /// Holds `act` up, or does it at once if nothing is held up any more.
    fn push(&self, act: Act) {
        let at_once = match &mut *lock(&self.acts) {
            Some(acts) => {
                acts.push_back(act);
                None
            }
            None => Some(act),
        };
        match at_once {
            Some(act) => act(),
            None => self.arrived.notify_waiters(),
        }
    }

    pub(super) fn hold_up(queue: Option<&Arc<Self>>, act: Act) {
        match queue {
            Some(queue) => queue.push(act),
            None => act(),
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = lock(&self.acts).as_ref().map_or(0, VecDeque::len);
        f.debug_struct("Queue").field("call", &self.call).field("held", &held).finish_non_exhaustive()
    }
}

impl Hold {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// Returns how many are held up now.
    #[must_use]
    pub fn held(&self) -> usize {
        lock(&self.queue.acts).as_ref().map_or(0, VecDeque::len)
    }

    /// Waits until `count` are held up.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn wait_until_held(&self, count: usize) {
        loop {
            let arrived = self.queue.arrived.notified();
            let mut arrived = std::pin::pin!(arrived);
            arrived.as_mut().enable();
            if self.held() >= count {
                return;
            }
            arrived.await;
        }
    }

    /// Lets the first go on, and says whether there was one.
    pub fn release_one(&self) -> bool {
        let first = lock(&self.queue.acts).as_mut().and_then(VecDeque::pop_front);
        first.is_some_and(|act| {
            act();
            true
        })
    }

    /// Drops those that are held up now: their callers get [`BackendError::Uncertain`].
    pub fn drop_held(&self) {
        let dropped = lock(&self.queue.acts).as_mut().map(std::mem::take);
        drop(dropped);
    }

    /// Lets all go on, in their order, and holds up nothing more.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Those that come meanwhile wait for those that came before.
        while self.release_one() {}
        let last = lock(&self.queue.acts).take();
        last.into_iter().flatten().for_each(|act| act());
    }
}

/// The destination of a call's answer; nowhere, if no caller is to get it.
pub(super) struct Reply<T> {
    to: Option<oneshot::Sender<Result<T, BackendError>>>,
    held_by: Option<Arc<Queue>>,
}

impl<T: Send + 'static> Reply<T> {
    pub(super) fn new(to: oneshot::Sender<Result<T, BackendError>>, held_by: Option<Arc<Queue>>) -> Self {
        Self { to: Some(to), held_by }
    }

    pub(super) fn nowhere() -> Self {
        Self { to: None, held_by: None }
    }

    pub(super) fn send(self, answer: Result<T, BackendError>) {
        let Some(to) = self.to else { return };
        // An error within: the caller waits no more.
        Queue::hold_up(self.held_by.as_ref(), Box::new(move || drop(to.send(answer))));
    }
}
