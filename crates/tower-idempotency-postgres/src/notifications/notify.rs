//! Sends notifications of which rows were written: after the commit, on a connection of its own, several at a time.
//!
//! `NOTIFY` takes a lock of the whole database when it commits; so no put waits for it. A notification that can't be
//! sent is dropped: the waiters find out by reading. `listen.rs` receives the notifications in each process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::connection::connect::{Connection, Connector, Use};
use crate::error::NotConnected;
use tower_idempotency::RecordId;

/// The time for which ids are gathered.
const BATCH_DELAY: Duration = Duration::from_millis(10);
/// The most ids that wait to be sent.
const QUEUE_CAPACITY: usize = 16_384;
/// The number of ids that a notification has: 64 digits each, within the 7,999 bytes that it may have.
const IDS_PER_PAYLOAD: usize = 124;
/// The time that the database may take.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failure, in which nothing is sent.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A notification for listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// This row was written.
    Written(RecordId),
    /// A ping with the number of the listener that asked for it. It shows whether notifications arrive.
    Ping(u64),
}

/// The queue of ids that are to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Notifier(mpsc::Sender<Notice>);

impl Notifier {
    /// A notifier, and the task that it needs.
    pub(crate) fn new(connector: Arc<Connector>, channel: String) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        (Self(sender), notify(connector, channel, receiver))
    }

    /// Queues the notification that this row was written. It never waits.
    pub(crate) fn notify(&self, id: RecordId) {
        // Too many wait already: those who wait for this one poll.
        let _ = self.0.try_send(Notice::Written(id));
    }

    /// Queues a ping for this process's own listener. If the queue is full, the ping counts as swallowed.
    pub(crate) fn ping(&self, number: u64) {
        let _ = self.0.try_send(Notice::Ping(number));
    }
}

/// Sends what is queued, in batches, until all notifiers are gone. What can't be sent is dropped.
async fn notify(connector: Arc<Connector>, channel: String, mut receiver: mpsc::Receiver<Notice>) {
    let mut connection = None;
    let mut gathered = Vec::new();
    while receiver.recv_many(&mut gathered, QUEUE_CAPACITY).await > 0 {
        sleep(BATCH_DELAY).await;
        while let Ok(notification) = receiver.try_recv() {
            gathered.push(notification);
        }
        let notifications = notifications(&channel, &gathered);
        gathered.clear();
        // `take`: a connection that fails or is late is dropped, and the next batch makes a new one.
        let sent = timeout(NOTIFY_TIMEOUT, send(&connector, connection.take(), &notifications)).await;
        match sent.unwrap_or(Err(NotConnected::Late(NOTIFY_TIMEOUT))) {
            Ok(open) => connection = Some(open),
            Err(reason) => {
                tracing::debug!(target: "tower_idempotency", %reason, "notifications of what was written were not sent");
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

/// Sends on the connection that there is, or on a new one: each payload on the channel at the same place.
async fn send(
    connector: &Connector,
    connection: Option<Connection>,
    (channels, payloads): &(Vec<String>, Vec<String>),
) -> Result<Connection, NotConnected> {
    let connection = match connection.filter(|connection| !connection.client.is_closed()) {
        Some(connection) => connection,
        None => connector.connect(Use::ChangeFeed, None).await?,
    };
    connector.queries.notify.ask(&connection.client, None, &[channels, payloads]).await?;
    Ok(connection)
}

/// Returns the notifications to send: their channels, and as few payloads as hold them. Each id is there once.
fn notifications(channel: &str, notifications: &[Notice]) -> (Vec<String>, Vec<String>) {
    let mut ids = Vec::new();
    let (mut channels, mut payloads) = (Vec::new(), Vec::new());
    for notification in notifications {
        match notification {
            Notice::Written(id) => ids.push(*id),
            Notice::Ping(number) => {
                channels.push(ping_channel(channel, *number));
                payloads.push(format!("ping {number:x}"));
            }
        }
    }
    ids.sort_unstable();
    ids.dedup();
    payloads.extend(ids.chunks(IDS_PER_PAYLOAD).map(|ids| ids.iter().map(RecordId::to_string).collect()));
    // The payloads after the pings have ids, and go to the channel of the namespace.
    channels.resize(payloads.len(), channel.to_owned());
    (channels, payloads)
}

/// Returns the channel of a ping: no other process listens there.
pub(crate) fn ping_channel(channel: &str, number: u64) -> String {
    format!("{channel}_{number:x}")
}

/// Returns the contents of a payload. Nothing, if it is not of this crate.
pub(crate) fn read(payload: &str) -> Vec<Notice> {
    if let Some(number) = payload.strip_prefix("ping ") {
        return u64::from_str_radix(number, 16).map(Notice::Ping).into_iter().collect();
    }
    let ids = payload.as_bytes().chunks(64).map(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    ids.map_while(|id| id.map(Notice::Written)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_read_and_fits() {
        let id = |number: u16| RecordId::from_bytes([number.to_le_bytes(); 16].concat().try_into().unwrap_or([0; 32]));
        let ids: Vec<_> = (0..300).map(id).collect();
        let mut sent: Vec<_> = ids.iter().chain(&ids).copied().map(Notice::Written).collect();
        sent.push(Notice::Ping(7));
        let (channels, payloads) = notifications("channel", &sent);
        assert_eq!(channels, ["channel_7", "channel", "channel", "channel"]);
        assert_eq!(payloads.len(), 4);
        assert!(payloads.iter().all(|payload| payload.len() < 8000));
        let read: Vec<_> = payloads.iter().flat_map(|payload| read(payload)).collect();
        assert_eq!(read.len(), 301);
        assert!(sent.iter().all(|one| read.contains(one)));
    }

    #[test]
    fn a_payload_of_somebody_else_tells_nothing() {
        for payload in ["", "ping", "ping x", "hello", "zz"] {
            assert_eq!(read(payload), []);
        }
    }
}
