//! The crate's hooks: what a run is here, and where another task may come between.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use shuttle::future::JoinHandle;
use tower_idempotency::laboratory::{self, Scheduler};

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The runs of the execution that this thread is at.
#[derive(Default)]
struct Runs {
    begun: usize,
    handles: Vec<JoinHandle<()>>,
    /// Which runs are dropped, by their number, and how long after their beginning.
    cuts: Vec<(usize, usize)>,
}

thread_local! {
    static RUNS: RefCell<Runs> = RefCell::default();
}

/// Puts the hooks in place, for the whole process.
pub fn hook() {
    laboratory::explore(Scheduler { point: switch, spawn });
}

/// What an execution that failed left behind is none of the next one's. Not to be called inside one.
pub fn forget() {
    RUNS.take();
}

/// From here on runs are counted, and those whose numbers are given will be dropped, as by a runtime that goes away, so
/// many breaths after they began.
pub fn count(cuts: Vec<(usize, usize)>) {
    RUNS.with_borrow_mut(|runs| (runs.begun, runs.cuts) = (0, cuts));
}

/// A task that goes on next to the runs, and ends.
pub fn also(task: JoinHandle<()>) {
    RUNS.with_borrow_mut(|runs| runs.handles.push(task));
}

/// The runs begun since this was called last.
pub fn take() -> Vec<JoinHandle<()>> {
    RUNS.with_borrow_mut(|runs| std::mem::take(&mut runs.handles))
}

/// Another task may come between.
pub fn switch() {
    let is_explored = shuttle::current::try_get_current_task().is_some();
    // A task that unwinds must not give way: others would be taken for panicking too.
    if is_explored && !std::thread::panicking() {
        // No yielding: that would tell the scheduler that this task can't go on.
        shuttle::thread::sleep(Duration::ZERO);
    }
}

/// Waits a moment: a place where this future may be dropped.
pub async fn breathe() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn spawn(run: Run) {
    let run = shuttle::future::spawn(run);
    let abort = run.abort_handle();
    let after = RUNS.with_borrow_mut(|runs| {
        let number = runs.begun;
        runs.begun += 1;
        runs.handles.push(run);
        runs.cuts.iter().find(|(cut, _)| *cut == number).map(|(_, after)| *after)
    });
    let Some(after) = after else { return };
    let cutting = shuttle::future::spawn(async move {
        for _ in 0..after {
            breathe().await;
        }
        abort.abort();
    });
    RUNS.with_borrow_mut(|runs| runs.handles.push(cutting));
}
