//! A look into the rows of a database.

use testkit::process::until;
use tower_idempotency_postgres::tokio_postgres::Client;

use super::redis::Redis;
use super::{postgres, redis};

/// A look into a database, which goes on until that is killed.
pub(crate) enum Look<'a> {
    Postgres(Client),
    Redis(&'a Redis),
}

impl Look<'_> {
    /// Returns what a later release might have made of a row, as pairs of a name and a [change](Self::write_anew).
    pub(crate) fn later(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Postgres(_) => &postgres::LATER,
            Self::Redis(_) => &redis::LATER,
        }
    }

    /// Changes the rows that no later release has written yet, except those of processes.
    pub(crate) async fn write_anew(&self, namespace: &str, change: &str) {
        match self {
            Self::Postgres(client) => postgres::write_anew(client, namespace, change).await,
            Self::Redis(redis) => redis.write_anew(namespace, change),
        }
    }

    /// Returns all rows that a later release has written, each as a text.
    pub(crate) async fn written_anew(&self, namespace: &str) -> Vec<String> {
        match self {
            Self::Postgres(client) => postgres::written_anew(client, namespace).await,
            Self::Redis(redis) => redis.written_anew(namespace),
        }
    }

    /// Returns the number of sessions. The row of one whose process has ended no longer counts.
    pub(crate) async fn sessions(&self, namespace: &str) -> usize {
        match self {
            Self::Postgres(client) => postgres::count(client, namespace, "r.kind = 6").await,
            Self::Redis(redis) => redis.count(namespace, "row.kind == 6"),
        }
    }

    /// Waits until so many sessions are alive that began more than so many seconds ago.
    pub(crate) async fn until_open_for(&self, namespace: &str, seconds: u32, sessions: usize) {
        let opened = async || match self {
            Self::Postgres(client) => {
                let since = format!("clock_timestamp() > r.began + interval '{seconds} s'");
                let are = format!("r.kind IN (5, 6) AND r.until > clock_timestamp() AND {since}");
                postgres::count(client, namespace, &are).await
            }
            Self::Redis(redis) => redis.count(namespace, &format!("lives(row) and now > row.began + {seconds} * 1000")),
        };
        until("the sessions are open for long", async || opened().await == sessions).await;
    }

    /// Returns the number of runs whose sessions were renewed recently enough for their leases to last, by the
    /// database's clock.
    pub(crate) async fn alive(&self, namespace: &str) -> usize {
        match self {
            Self::Postgres(client) => {
                let session = "SELECT FROM idempotency.record s WHERE s.namespace = r.namespace AND s.id = r.session \
                    AND s.kind IN (5, 6) AND s.until > clock_timestamp()";
                postgres::count(client, namespace, &format!("r.kind = 1 AND EXISTS ({session})")).await
            }
            Self::Redis(redis) => {
                let session = "look('ti:{' .. ARGV[1] .. '}:r:' .. row.session)";
                redis.count(namespace, &format!("row.kind == 1 and row.session and lives({session})"))
            }
        }
    }
}
