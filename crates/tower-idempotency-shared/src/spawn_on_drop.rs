//! A future of the store that its caller polls for as long as the caller waits.
//!
//! A task for each step would cost two switches between tasks for each call of the database. So the caller polls the
//! future itself, if it is in the store's runtime, whose clock and connections the future needs. If the caller goes
//! away, a task finishes the future.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tower_idempotency::internals;
use tower_idempotency::store::StoreError;

/// The function that handles a result whose caller has gone.
type OnAbandoned<T> = Box<dyn FnOnce(T) -> BoxFuture<'static, ()> + Send>;

/// A future that is polled by its caller, and finished by a task if the caller drops it.
pub(super) struct SpawnOnDrop<T: Send + 'static> {
    /// The store's runtime, in which the future has to be polled.
    runtime: Handle,
    /// The future while its caller polls it, and what to do with its result if the caller goes away. `None` during a
    /// poll, and once it has ended, panicked or is a task's.
    polled: Option<(BoxFuture<'static, T>, OnAbandoned<T>)>,
    /// The answer of the task, if the caller is in another runtime.
    answer: Option<oneshot::Receiver<T>>,
}

impl<T: Send + 'static> SpawnOnDrop<T> {
    /// Wraps `future`. `on_abandoned` is called with its result if the caller has gone.
    pub(super) fn new(
        runtime: &Handle,
        future: impl Future<Output = T> + Send + 'static,
        on_abandoned: impl FnOnce(T) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Self {
        let polled: (BoxFuture<'static, T>, OnAbandoned<T>) = (Box::pin(future), Box::new(on_abandoned));
        Self { runtime: runtime.clone(), polled: Some(polled), answer: None }
    }
}

impl<T: Send + 'static> Future for SpawnOnDrop<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // In another runtime than the store's, the future's timers and sockets would not work.
        let is_in_its_runtime = Handle::try_current().is_ok_and(|current| current.id() == self.runtime.id());
        if is_in_its_runtime && let Some((mut future, on_abandoned)) = self.polled.take() {
            // The future is taken out while it is polled: a future that has panicked must not be polled again.
            return match future.poll_unpin(context) {
                Poll::Ready(result) => Poll::Ready(Ok(result)),
                Poll::Pending => {
                    self.polled = Some((future, on_abandoned));
                    Poll::Pending
                }
            };
        }
        // The caller is in another runtime, so a task of the store's runtime goes on with the future.
        if let Some((future, on_abandoned)) = self.polled.take() {
            let (reply, answer) = oneshot::channel();
            self.answer = Some(answer);
            self.runtime.spawn(async move {
                if let Err(result) = reply.send(future.await) {
                    on_abandoned(result).await;
                }
            });
        }
        let gone = |_| internals::uncertain("the store's runtime is gone");
        match &mut self.answer {
            Some(answer) => answer.poll_unpin(context).map_err(gone),
            // It was polled again after its end or its panic.
            None => Poll::Ready(Err(internals::uncertain("it has ended"))),
        }
    }
}

impl<T: Send + 'static> Drop for SpawnOnDrop<T> {
    fn drop(&mut self) {
        if let Some((future, on_abandoned)) = self.polled.take() {
            self.runtime.spawn(async move { on_abandoned(future.await).await });
        }
    }
}
