//! The machine: a tokio runtime for timers and for the tasks that the crate spawns there. It goes on only when a task
//! of the schedule lets it.

use std::time::Duration;

use shuttle::sync::Mutex;
use tokio::runtime::{Builder, EnterGuard, Runtime};

/// The number of polls after which a spawned task waits for something else.
const TURNS: usize = 4;

#[derive(Debug)]
pub struct Machine {
    runtime: Runtime,
    // A runtime is driven by one task at a time.
    turn: Mutex<()>,
}

impl Machine {
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        Self { runtime: runtime.expect("a runtime needs memory alone"), turn: Mutex::new(()) }
    }

    /// Makes this machine the one for timers that are made from here on.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Lets time pass: timers fire.
    pub fn pass(&self, time: Duration) {
        let _turn = self.turn.lock().expect("no holder panics");
        self.runtime.block_on(async {
            tokio::time::advance(time).await;
            turn().await;
        });
    }

    /// Lets the spawned tasks go on.
    pub fn go_on(&self) {
        let _turn = self.turn.lock().expect("no holder panics");
        self.runtime.block_on(turn());
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

async fn turn() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}
