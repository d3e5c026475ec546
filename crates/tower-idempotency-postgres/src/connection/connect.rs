//! One connection to the database.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join3, try_join5};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, Notification, Statement};

use super::place::Place;
use crate::builder::PostgresBackendBuilder;
use crate::error::NotConnected;
use crate::hosts;
use crate::queries::Queries;
use crate::tls::Tls;

/// Makes connections.
pub(crate) struct Connector {
    /// One for each host.
    configs: Vec<Config>,
    /// The index of the host that was connected to last.
    last: AtomicUsize,
    /// The time that one of several hosts may take before the next one is tried.
    timeout: Duration,
    /// What was chosen. Behind a pooler, no statement is prepared, and nothing is set for a connection.
    pub(crate) settings: PostgresBackendBuilder,
    pub(crate) queries: Queries,
}

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Calls, with statements that are prepared.
    Calls,
    /// Sends and receives notifications of which rows were written. It is also used to look for the table at opening.
    ChangeFeed,
    /// To make the tables: may take long.
    Migration,
}

/// A connection. When it is dropped, the socket is closed at once, unless a call is under way.
pub(crate) struct Connection {
    /// Sends the statements. The task below moves their bytes.
    pub(crate) client: Client,
    /// `None` behind a pooler, and on a connection that is not for calls.
    pub(crate) prepared: Option<Prepared>,
    /// The number of calls that it has had.
    calls: AtomicU32,
    /// The same for each connection to a server: which database cluster it is.
    pub(crate) system: u64,
    /// The server has said that it did not wait for its standbys, though it answered that it has committed.
    unconfirmed: Arc<AtomicBool>,
    /// The place of the call that has the connection. `Taken::done` takes it out, so `drop` finds it only if the call
    /// was dropped.
    pub(crate) place: Option<Place>,
    /// The task that runs `drive`. When it ends, the socket is closed.
    task: Option<JoinHandle<()>>,
}

/// Statements that the server knows already.
pub(crate) struct Prepared {
    pub(crate) put: Statement,
    pub(crate) put_one: Statement,
    pub(crate) insert: Statement,
    pub(crate) update: Statement,
    pub(crate) get: Statement,
}

impl Drop for Connection {
    fn drop(&mut self) {
        match (self.task.take(), self.place.take()) {
            // The call's requester has gone, but the server still works on it: it waits for its standby, or for a lock.
            (Some(task), Some(place)) if place.is_kept => place.keep_until_over(task),
            (Some(task), _) => task.abort(),
            (None, _) => {}
        }
    }
}

impl Connection {
    /// Counts a call, and has the server make its plans anew after 16 of them, 32, 64 and so on, and after each 1,024.
    ///
    /// A plan is made for the table as it is then. Of a table with a few rows it reads all of them, which costs no more
    /// than to look for one; and it is kept while the table grows, until the table is analyzed.
    pub(crate) async fn count_call(&self) -> Result<(), Error> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if self.prepared.is_some() && (calls.is_multiple_of(1024) || calls >= 16 && calls.is_power_of_two()) {
            self.client.batch_execute("DISCARD PLANS").await?;
        }
        Ok(())
    }

    /// Returns whether a commit was answered without its standbys, since this was asked last.
    pub(crate) fn take_unconfirmed(&self) -> bool {
        self.unconfirmed.swap(false, Ordering::Relaxed)
    }
}

impl Connector {
    pub(crate) fn new(builder: &PostgresBackendBuilder) -> Self {
        let mut config = builder.config.clone();
        // A listener on a server that is gone would not notice for hours.
        if config.get_keepalives_idle() >= Duration::from_secs(7200) {
            config.keepalives_idle(Duration::from_secs(10));
            config.keepalives_interval(Duration::from_secs(5));
            config.keepalives_retries(3);
        }
        let configs = hosts::each(&config);
        Self {
            timeout: builder.wait_for_connection / u32::try_from(configs.len()).unwrap_or(u32::MAX),
            configs,
            last: AtomicUsize::new(0),
            settings: builder.clone(),
            queries: Queries::new(&builder.schema),
        }
    }

    /// Connects to one of the hosts, first to the one that was connected to last. Notifications go to `notifications`,
    /// if they are wanted.
    pub(crate) async fn connect(
        &self,
        what_for: Use,
        notifications: Option<mpsc::UnboundedSender<Notification>>,
    ) -> Result<Connection, NotConnected> {
        // Several hosts: each has a share of the time.
        let [config] = &self.configs[..] else {
            let (last, hosts) = (self.last.load(Ordering::Relaxed), self.configs.len());
            let mut failed: Option<NotConnected> = None;
            for host in (last..last + hosts).map(|host| host % hosts) {
                let connecting = self.connect_to(&self.configs[host], what_for, notifications.clone());
                let error = match timeout(self.timeout, connecting).await {
                    Ok(Ok(connection)) => {
                        self.last.store(host, Ordering::Relaxed);
                        return Ok(connection);
                    }
                    Ok(Err(error)) => error,
                    Err(_) => NotConnected::Late(self.timeout),
                };
                // One that is away may come back: that another refuses is not the end.
                if failed.as_ref().is_none_or(|before| before.is_for_good() || !error.is_for_good()) {
                    failed = Some(error.at(&self.configs[host]));
                }
            }
            return Err(failed.unwrap_or(NotConnected::Late(self.timeout)));
        };
        self.connect_to(config, what_for, notifications).await.map_err(|error| error.at(config))
    }

    /// The hosts that are connected to, with their ports.
    pub(crate) fn places(&self) -> String {
        self.configs.iter().map(hosts::place).collect::<Vec<_>>().join(", ")
    }

    /// Connects to one host and starts its task. A connection for calls is checked, and gets its prepared statements.
    async fn connect_to(
        &self,
        config: &Config,
        what_for: Use,
        notifications: Option<mpsc::UnboundedSender<Notification>>,
    ) -> Result<Connection, NotConnected> {
        let config = self.config_for(config, what_for);
        let unconfirmed = Arc::new(AtomicBool::new(false));
        let (client, task) = match &self.settings.tls {
            Tls::Without => {
                let (client, connection) = config.connect(NoTls).await.map_err(NotConnected::of)?;
                (client, tokio::spawn(drive(connection, Arc::clone(&unconfirmed), notifications)))
            }
            #[cfg(feature = "rustls")]
            Tls::Rustls(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(NotConnected::of)?;
                (client, tokio::spawn(drive(connection, Arc::clone(&unconfirmed), notifications)))
            }
        };
        let mut connection = Connection {
            client,
            prepared: None,
            calls: AtomicU32::new(0),
            system: 0,
            unconfirmed,
            place: None,
            task: Some(task),
        };
        if self.settings.pooler {
            check_path(&connection.client).await?;
        }
        if what_for == Use::Calls {
            let client = &connection.client;
            let (is_set, system, prepared) = join3(self.is_set(client), system(client), self.prepare(client)).await;
            if !is_set? {
                return Err(NotConnected::Pooler);
            }
            connection.system = system?;
            connection.prepared = prepared?;
        }
        Ok(connection)
    }

    /// Returns whether the connection has what was set for it. A pooler may drop that without a word, and give the next
    /// transaction another connection: then statements that are prepared are missing, or are another client's.
    async fn is_set(&self, client: &Client) -> Result<bool, Error> {
        if self.settings.pooler {
            return Ok(true);
        }
        let set = "SELECT current_setting('plan_cache_mode') = 'force_generic_plan'";
        client.query_typed_one(set, &[]).await?.try_get(0)
    }

    /// Prepares the statements of calls, all at once; none behind a pooler.
    async fn prepare(&self, client: &Client) -> Result<Option<Prepared>, Error> {
        if self.settings.pooler {
            return Ok(None);
        }
        let Queries { put, put_one, insert, update, get, .. } = &self.queries;
        let (put, put_one, insert, update, get) = try_join5(
            put.prepare(client),
            put_one.prepare(client),
            insert.prepare(client),
            update.prepare(client),
            get.prepare(client),
        )
        .await?;
        Ok(Some(Prepared { put, put_one, insert, update, get }))
    }

    /// The configuration, with the settings that hold for the connection: whatever the role has.
    fn config_for(&self, config: &Config, what_for: Use) -> Config {
        let mut config = config.clone();
        if self.settings.pooler {
            return config;
        }
        let mut options = config.get_options().unwrap_or_default().to_owned();
        // Statements that share a snapshot would not see what made one of them do nothing.
        options.push_str(" -c default_transaction_isolation=read\\ committed");
        // The server says by a warning that it did not wait for its standbys.
        options.push_str(" -c client_min_messages=warning");
        // All names but the database's own have their schema: nothing that others have made is preferred to those.
        options.push_str(" -c search_path=pg_catalog,pg_temp");
        // Between two statements of a transaction, a process that is busy may take longer than a role is given. A
        // statement that fails, as one before the table is there, ends no connection.
        options.push_str(" -c idle_in_transaction_session_timeout=60s -c exit_on_error=off");
        if what_for == Use::Migration {
            options.push_str(" -c statement_timeout=60s -c lock_timeout=60s");
        } else {
            // Plans that don't depend on how large the table was when they were made.
            options
                .push_str(" -c jit=off -c enable_seqscan=off -c plan_cache_mode=force_generic_plan -c lock_timeout=1s");
            options.push_str(&format!(" -c statement_timeout={}", self.settings.statement_timeout.as_millis().max(1)));
        }
        config.options(options);
        config
    }
}

/// Refuses a search path that has a schema before the database's own, where none is set for a connection: what others
/// have made in it would be used.
async fn check_path(client: &Client) -> Result<(), NotConnected> {
    let path: Vec<String> = client.query_typed_one("SELECT pg_catalog.current_schemas(true)", &[]).await?.try_get(0)?;
    // No function or operator is looked for in it.
    let first = path.iter().find(|schema| !schema.starts_with("pg_temp")).filter(|first| *first != "pg_catalog");
    first.map_or(Ok(()), |first| {
        Err(NotConnected::Rights(format!(
            "the role's `search_path` has the schema {first} before pg_catalog: take pg_catalog out of it, or put it first"
        )))
    })
}

/// Returns the identifier of the database cluster; 0 if the role may not read it.
async fn system(client: &Client) -> Result<u64, Error> {
    match client.query_typed_one("SELECT system_identifier FROM pg_catalog.pg_control_system()", &[]).await {
        Ok(row) => Ok(row.try_get::<_, i64>(0)?.cast_unsigned()),
        Err(error) if error.code().is_some_and(|code| code.code().starts_with("42")) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Moves bytes until the connection ends.
async fn drive<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    unconfirmed: Arc<AtomicBool>,
    notifications: Option<mpsc::UnboundedSender<Notification>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            // "canceling wait for synchronous replication": committed here, and nowhere else. The text depends on the
            // server's language, the name of its function does not.
            Ok(AsyncMessage::Notice(notice)) if notice.routine() == Some("SyncRepWaitForLSN") => {
                // It comes before the end of its statement's answer, on the same task: the caller sees it.
                unconfirmed.store(true, Ordering::Relaxed);
            }
            Ok(AsyncMessage::Notification(notification)) => {
                // The listener has gone: the connection ends soon.
                let _ = notifications.as_ref().is_some_and(|listener| listener.send(notification).is_err());
            }
            // Other notices and messages say nothing that is needed.
            Ok(_) => {}
            Err(error) => {
                // The calls that wait get errors of their own.
                tracing::debug!(target: "tower_idempotency", %error, "a connection to the database has ended");
                return;
            }
        }
    }
}
