//! The database in memory keeps the contract: by the machine's clock, and by one moved by hand.

use std::time::Duration;

use tower_idempotency::clock::{ManualClock, Timestamp};
use tower_idempotency_conformance::backend::BackendSubject;
use tower_idempotency_conformance::memory_backend::{Call, MemoryBackend, Replication};

/// A database with all parts that the suite can use.
pub(crate) fn whole() -> BackendSubject<MemoryBackend> {
    let clock = ManualClock::new(Timestamp::from_millis(1_790_000_000_000));
    let backend = MemoryBackend::with_clock(clock.clone());
    let (held, database) = (backend.clone(), backend.database().clone());
    let standby = database.clone();
    another_process(backend)
        .clock(move |by: Duration| clock.advance(by))
        .held_back_by(move || {
            let hold = held.hold(Call::Put);
            move || hold.release()
        })
        .restarted_by(move || {
            database.restart();
            std::future::ready(())
        })
        .undurable_by(move |is_undurable| {
            standby.replication(if is_undurable { Replication::Awaited } else { Replication::InStep });
        })
}

fn another_process(backend: MemoryBackend) -> BackendSubject<MemoryBackend> {
    let (other, another) = (backend.another_process(), backend.namespace("another"));
    BackendSubject::new(backend).another_process(other).another_namespace(another)
}

mod by_hand {
    async fn subject() -> super::BackendSubject<super::MemoryBackend> {
        super::whole()
    }

    tower_idempotency_conformance::backend_conformance!(subject);
}

mod by_the_machine_s_clock {
    async fn subject() -> super::BackendSubject<super::MemoryBackend> {
        super::another_process(super::MemoryBackend::new())
    }

    tower_idempotency_conformance::backend_conformance!(subject);
}

/// A backend alone, without any further part that the suite could use, is enough.
#[tokio::test]
async fn the_whole_suite_runs_in_one_call_on_a_backend_alone() {
    tower_idempotency_conformance::backend::all(async || BackendSubject::new(MemoryBackend::new())).await;
}
