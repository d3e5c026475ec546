//! The crate's hooks: the tasks of runs, and the places where another task may run.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use shuttle::future::JoinHandle;
use tower_idempotency::laboratory::{self, Scheduler};

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The runs of this thread's current execution.
#[derive(Default)]
struct Runs {
    begun: usize,
    handles: Vec<JoinHandle<()>>,
    /// The runs that are dropped, by their number, and the number of breaths after they began.
    cuts: Vec<(usize, usize)>,
}

thread_local! {
    static RUNS: RefCell<Runs> = RefCell::default();
}

/// Puts the hooks in place, for the whole process.
pub fn hook() {
    laboratory::explore(Scheduler { point: switch, spawn });
}

/// Removes the runs that a failed execution left, before the next one. Must not be called inside an execution.
pub fn forget() {
    RUNS.take();
}

/// Counts runs from here on. The runs with the given numbers will be dropped, as by a runtime that goes away, after the
/// given number of breaths.
pub fn count(cuts: Vec<(usize, usize)>) {
    RUNS.with_borrow_mut(|runs| (runs.begun, runs.cuts) = (0, cuts));
}

/// Adds a task that runs at the same time as the runs, and ends.
pub fn also(task: JoinHandle<()>) {
    RUNS.with_borrow_mut(|runs| runs.handles.push(task));
}

/// Takes the runs that began since the last call.
pub fn take() -> Vec<JoinHandle<()>> {
    RUNS.with_borrow_mut(|runs| std::mem::take(&mut runs.handles))
}

/// Lets another task run.
pub fn switch() {
    let is_explored = shuttle::current::try_get_current_task().is_some();
    // A task that unwinds must not yield: the others would count as panicking too.
    if is_explored && !std::thread::panicking() {
        // This does not yield: a yield means to the scheduler that this task can't go on.
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
