//! Hears which rows were written, on a connection of its own. `keep_listening` of
//! tower-idempotency-shared (`inner.rs`) takes the ids from here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_postgres::{Client, Notification};

use super::notify::{Notice, Notifier, ping_channel, read};
use crate::connection::connect::{Connection, Connector, Use};
use crate::error::NotConnected;
use tower_idempotency::internals::pauses;
use tower_idempotency_shared::{for_backends, random};

/// The time that a connection may take.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The notifications, for all listeners. The task of `listen` sends them, and `Backend::changes` receives them.
#[derive(Debug, Default)]
pub(crate) struct ChangeFeed {
    pub(crate) heard: for_backends::ChangeFeed,
    /// `guarantee.rs` reports it.
    arrival: watch::Sender<Arrival>,
}

/// The arrival of notifications, as far as it is known. A pooler in transaction mode swallows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Not known yet.
    #[default]
    NotTried,
    /// They do.
    Arrives,
    /// One that was sent did not come.
    Swallowed,
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTried => "not tried yet",
            Self::Arrives => "arrive",
            Self::Swallowed => "do not arrive",
        })
    }
}

impl ChangeFeed {
    pub(crate) fn arrival(&self) -> Arrival {
        *self.arrival.borrow()
    }

    /// Sets what is known about notifications, and logs it if it is new.
    fn set_arrival(&self, arrival: Arrival) {
        if self.arrival.send_replace(arrival) == arrival {
            return;
        }
        if arrival == Arrival::Swallowed {
            tracing::warn!(
                target: "tower_idempotency",
                "notifications of the database do not arrive; is there a pooler in transaction mode? Those who wait for a \
                 run on another server poll"
            );
        } else {
            tracing::info!(target: "tower_idempotency", "notifications of the database arrive");
        }
    }
}

/// Listens, and connects again when the connection ends.
pub(crate) async fn listen(connector: Arc<Connector>, channel: String, notifier: Notifier, changes: Arc<ChangeFeed>) {
    let pauses = || pauses(Duration::from_millis(100), Duration::from_secs(10)).build();
    let mut pause = pauses();
    // Each connection has a ping with a number of its own. The first one is random, so that the pings of two processes
    // differ.
    let mut number = u64::from_le_bytes(random());
    loop {
        number = number.wrapping_add(1);
        // A pooler in transaction mode leaves the server's connection listening for the next client that has it. So
        // nothing but the ping is listened for until that has come.
        let ping = format!("LISTEN {}", ping_channel(&channel, number));
        let (at_once, then) = if connector.settings.pooler {
            (ping, Some(format!("LISTEN {channel}")))
        } else {
            (format!("{ping}; LISTEN {channel}"), None)
        };
        match timeout(LISTEN_TIMEOUT, connect(&connector, &at_once)).await {
            Ok(Ok((connection, notifications))) => {
                pause = pauses();
                // The task of `notify.rs` sends the ping. It comes back here if notifications arrive.
                notifier.ping(number);
                hear(notifications, number, &changes, then.map(|then| (&connection.client, then))).await;
                // The connection is kept until `hear` has returned.
                drop(connection);
            }
            Ok(Err(error)) => {
                tracing::debug!(target: "tower_idempotency", %error, "the database can't be listened to");
            }
            Err(_) => tracing::debug!(target: "tower_idempotency", "the database does not answer to a listener"),
        }
        sleep(pause.next().unwrap_or(LISTEN_TIMEOUT)).await;
    }
}

type Notifications = mpsc::UnboundedReceiver<Notification>;

/// Connects, and sends the `LISTEN` statements in `listen`. Returns the stream of what arrives.
async fn connect(connector: &Connector, listen: &str) -> Result<(Connection, Notifications), NotConnected> {
    let (sender, notifications) = mpsc::unbounded_channel();
    let connection = connector.connect(Use::ChangeFeed, Some(sender)).await?;
    connection.client.batch_execute(listen).await?;
    Ok((connection, notifications))
}

/// Passes on what is heard, until the connection ends. When the ping has come, `then` is sent.
async fn hear(mut notifications: Notifications, ping: u64, changes: &ChangeFeed, mut then: Option<(&Client, String)>) {
    let deadline = Instant::now() + LISTEN_TIMEOUT;
    let mut waits_for_ping = true;
    loop {
        let next = if waits_for_ping {
            timeout_at(deadline, notifications.recv()).await
        } else {
            Ok(notifications.recv().await)
        };
        // The ping did not come in time. Notifications may still arrive, so this listens on.
        let Ok(next) = next else {
            waits_for_ping = false;
            changes.set_arrival(Arrival::Swallowed);
            continue;
        };
        // The connection has ended. `listen` makes another one.
        let Some(notification) = next else { return };
        for notification in read(notification.payload()) {
            match notification {
                Notice::Written(id) => changes.heard.send(id),
                Notice::Ping(number) if number == ping => {
                    waits_for_ping = false;
                    if let Some((client, then)) = then.take()
                        && client.batch_execute(&then).await.is_err()
                    {
                        return;
                    }
                    changes.set_arrival(Arrival::Arrives);
                }
                // The ping of another connection, which a pooler has passed on.
                Notice::Ping(_) => {}
            }
        }
    }
}

/// The channel of a namespace: a name that needs no quotes, whatever the namespace's name is.
pub(crate) fn channel(schema: &str, namespace: &str) -> String {
    let digest = blake3::Hasher::new_derive_key("tower-idempotency 2026 postgres channel v1")
        .update(&(schema.len() as u64).to_le_bytes())
        .update(schema.as_bytes())
        .update(namespace.as_bytes())
        .finalize();
    format!("idempotency_{}", &digest.to_hex()[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_ping_that_does_not_come_is_noticed() {
        let changes = ChangeFeed::default();
        let (server, notifications) = mpsc::unbounded_channel();
        let hearing = timeout(LISTEN_TIMEOUT * 2, hear(notifications, 7, &changes, None));
        assert!(hearing.await.is_err(), "it goes on");
        assert_eq!(changes.arrival(), Arrival::Swallowed);
        drop(server);
    }

    #[test]
    fn channels_need_no_quotes_and_differ() {
        let one = channel("idempotency", "payments");
        assert!(ping_channel(&one, u64::MAX).len() < 64);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        assert_ne!(one, channel("idempotency", "mails"));
        assert_ne!(channel("a", "bc"), channel("ab", "c"));
    }
}
