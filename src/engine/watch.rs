//! Waiting for a run in another process. `slots/end_watch.rs` has the waiters, and passes the end to them.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use tokio::time::{timeout, timeout_at};

use super::engine::Engine;
use super::met::Met;
use crate::fingerprint::{Fingerprint, Match};
use crate::laboratory;
use crate::record::Operation;
use crate::slots::{Attempt, End, EndWatch, Ended};
use crate::store::Store;
use crate::timeouts::{STORE_TIMEOUT, pauses};

/// The shortest and the longest pause before the record is read, where the store does not report the change.
const MIN_POLL_PAUSE: Duration = Duration::from_millis(25);
const MAX_POLL_PAUSE: Duration = Duration::from_millis(250);

/// Waits for the end of the run that another process has, for at most `timeout`.
pub(super) async fn wait_elsewhere<St: Store>(
    engine: &Arc<Engine<St>>,
    operation: &Operation,
    timeout: Duration,
) -> Result<(End, Attempt), Match> {
    if timeout.is_zero() {
        return Ok((End::InFlight, Attempt::default()));
    }
    let (waiter, watch) = engine.store.slots().watch(operation.id, operation.fingerprint);
    // Of all requests that wait for one run, the first one starts the task.
    if let Some(watch) = watch {
        laboratory::spawn(look_for_end(Arc::clone(engine), watch, operation.fingerprint));
    }
    waiter.join(&operation.fingerprint, timeout).await
}

/// Reads the record whenever it has changed, or after a pause, until the run has ended or no request waits.
async fn look_for_end<St: Store>(engine: Arc<Engine<St>>, watch: EndWatch, asked: Fingerprint) {
    for pause in pauses(MIN_POLL_PAUSE, MAX_POLL_PAUSE).build() {
        // A notification may be missed, so the record is read after the pause in any case.
        let _ = timeout_at(watch.tick(pause), engine.store.changed(watch.id)).await;
        if !watch.is_wanted() {
            return;
        }
        match timeout(STORE_TIMEOUT, engine.store.load(watch.id)).await {
            Ok(Ok(Some(record))) => {
                let record = engine.presented(record);
                let fingerprint = record.fingerprint;
                let met = Met { policy: &engine.policy, fingerprint: &fingerprint, record: &record };
                let is_answer = met.is_answer();
                let ended = Ended::from(record);
                if ended.is_in_flight() {
                    continue;
                }
                // The operation runs again, or the application is asked, when another request comes. A waiter never
                // claims.
                return watch.end(if is_answer { ended } else { Ended::new(fingerprint, End::Released) });
            }
            Ok(Ok(None)) => return watch.end(Ended::new(asked, End::Released)),
            // The store is away. The run may still end well.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
