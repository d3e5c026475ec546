//! Hears which rows were written, on a connection of its own. Those who wait for a row read it anyway, if less often.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use futures_util::StreamExt as _;
use futures_util::future::select;
use redis::aio::PubSub;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower_idempotency::RecordId;
use tower_idempotency::internals::pauses;
use tower_idempotency_shared::for_backends::ChangeFeed;

use super::connection::connect::Connector;

/// The time between two looks whether the connection is still there, and the time for the answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens, and connects again when the connection ends, or when all connections are `dropped`.
pub(crate) async fn listen(connector: Arc<Connector>, channel: String, changes: Arc<ChangeFeed>, dropped: Arc<Notify>) {
    let pauses = || pauses(Duration::from_millis(100), Duration::from_secs(10)).build();
    let mut pause = pauses();
    loop {
        // Asked for before the connection is made, so that no notice is missed.
        let is_dropped = dropped.notified();
        match connector.listen(&channel).await {
            Ok(listener) => {
                pause = pauses();
                select(pin!(hear(listener, &changes)), pin!(is_dropped)).await;
            }
            Err(error) => tracing::debug!(target: "tower_idempotency", %error, "Redis can't be listened to"),
        }
        sleep(pause.next().unwrap_or(PING_TIMEOUT)).await;
    }
}

/// Passes on what is heard, until the connection ends.
async fn hear(listener: PubSub, changes: &ChangeFeed) {
    let (mut sink, mut messages) = listener.split();
    loop {
        match timeout(PING_EVERY, messages.next()).await {
            Ok(Some(message)) => {
                // One message for all rows of a call.
                let (ids, _) = message.get_payload_bytes().as_chunks();
                ids.iter().for_each(|id| changes.send(RecordId::from_bytes(*id)));
            }
            Ok(None) => return,
            Err(_) => {
                let pinged = timeout(PING_TIMEOUT, sink.ping::<redis::Value>()).await;
                if !matches!(pinged, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}
