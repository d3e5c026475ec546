//! A point in the life of a request, counted in polls of its future and of its run.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

/// A point that is reached after `after` polls of the futures that it counts. A `holding` point then stops these
/// futures until it is passed.
#[derive(Debug)]
pub(crate) struct Point {
    after: usize,
    holding: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counting: bool,
    polls: usize,
    passed: bool,
    run: Run,
    waiting: Vec<Waker>,
}

/// The stage of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Run {
    #[default]
    None,
    Begun,
    Over,
}

impl Point {
    pub(crate) fn holding(after: usize) -> Arc<Self> {
        Arc::new(Self { after, holding: true, state: Mutex::default() })
    }

    /// Returns a point that holds nothing.
    pub(crate) fn passing(after: usize) -> Arc<Self> {
        Arc::new(Self { after, holding: false, state: Mutex::default() })
    }

    /// Begins to count.
    pub(crate) fn begin(&self) {
        self.lock().counting = true;
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.lock().is_reached(self.after)
    }

    pub(crate) fn run(&self) -> Run {
        self.lock().run
    }

    pub(crate) async fn reached(&self) {
        poll_fn(|cx| self.look(cx, |state| state.is_reached(self.after))).await;
    }

    /// Lets everything that the point holds go on.
    pub(crate) fn pass(&self) {
        let mut state = self.lock();
        state.passed = true;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Counts the polls of `future`.
    pub(crate) fn counted<F: Future + Unpin>(self: Arc<Self>, mut future: F) -> impl Future<Output = F::Output> {
        poll_fn(move |cx| {
            ready!(self.look(cx, |state| !self.holding || state.passed || !state.is_reached(self.after)));
            let polled = future.poll_unpin(cx);
            self.count();
            polled
        })
    }

    /// Returns a wrapper for `wrap_run` that counts the polls of a run, too.
    pub(crate) fn counting(self: &Arc<Self>) -> impl Fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()> + use<> {
        let point = Arc::clone(self);
        move |run| {
            let (counted, point) = (Arc::clone(&point), Arc::clone(&point));
            let run = async move {
                point.lock().run = Run::Begun;
                run.await;
                point.lock().run = Run::Over;
            };
            counted.counted(run.boxed()).boxed()
        }
    }

    fn count(&self) {
        let mut state = self.lock();
        state.polls += usize::from(state.counting);
        if state.is_reached(self.after) {
            state.waiting.drain(..).for_each(Waker::wake);
        }
    }

    fn look(&self, cx: &Context<'_>, is: impl FnOnce(&State) -> bool) -> Poll<()> {
        let mut state = self.lock();
        if is(&state) {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waiting| waiting.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

impl State {
    fn is_reached(&self, after: usize) -> bool {
        self.counting && self.polls >= after
    }
}
