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

use crate::store::StoreError;

/// The function that handles a result whose caller has gone.
type Unwanted<T> = Box<dyn FnOnce(T) -> BoxFuture<'static, ()> + Send>;

/// A future that is polled by its caller, and finished by a task if the caller drops it.
pub(super) struct SpawnOnDrop<T: Send + 'static> {
    runtime: Handle,
    here: Option<Here<T>>,
    /// The answer of the task, if the caller is in another runtime.
    there: Option<oneshot::Receiver<T>>,
}

struct Here<T> {
    future: BoxFuture<'static, T>,
    unwanted: Unwanted<T>,
}

impl<T: Send + 'static> SpawnOnDrop<T> {
    /// Wraps `future`. `unwanted` is called with its result if the caller has gone.
    pub(super) fn new(
        runtime: &Handle,
        future: impl Future<Output = T> + Send + 'static,
        unwanted: impl FnOnce(T) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Self {
        let here = Here { future: Box::pin(future), unwanted: Box::new(unwanted) };
        Self { runtime: runtime.clone(), here: Some(here), there: None }
    }

    fn is_in_its_runtime(&self) -> bool {
        Handle::try_current().is_ok_and(|current| current.id() == self.runtime.id())
    }
}

impl<T: Send + 'static> Future for SpawnOnDrop<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.is_in_its_runtime()
            && let Some(mut here) = self.here.take()
        {
            // The future is taken out while it is polled: a future that has panicked must not be polled again.
            return match here.future.poll_unpin(context) {
                Poll::Ready(result) => Poll::Ready(Ok(result)),
                Poll::Pending => {
                    self.here = Some(here);
                    Poll::Pending
                }
            };
        }
        if let Some(Here { future, unwanted }) = self.here.take() {
            let (reply, there) = oneshot::channel();
            self.there = Some(there);
            self.runtime.spawn(async move {
                if let Err(result) = reply.send(future.await) {
                    unwanted(result).await;
                }
            });
        }
        let gone = |_| StoreError::uncertain("the store's runtime is gone");
        match &mut self.there {
            Some(there) => there.poll_unpin(context).map_err(gone),
            None => Poll::Ready(Err(StoreError::uncertain("it has ended"))),
        }
    }
}

impl<T: Send + 'static> Drop for SpawnOnDrop<T> {
    fn drop(&mut self) {
        if let Some(Here { future, unwanted }) = self.here.take() {
            self.runtime.spawn(async move { unwanted(future.await).await });
        }
    }
}
