//! How a builder becomes a backend.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use redis::{Value, cmd};
use tokio::sync::watch;
use tokio::time::Instant;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::for_backends::{ChangeFeed, NotOpen, Task, tried};
use tower_idempotency_shared::{
    Backend as _, BackendError, Clocks, Expect, Kind, NewExpiry, NewFence, Stamp, Token, Write, random,
};

use super::backend::RedisBackend;
use super::builder::RedisBackendBuilder;
use super::changes::listen;
use super::connection::connect::{Connector, Tls};
use super::connection::pool::Pool;
use super::database::Database;
use super::error::{NotConnected, Opened, RedisError, not_connected, refused};
use super::script::{Keys, Scripts};

/// The time for which the row of the trial is kept.
const TRIAL: Duration = Duration::from_secs(60);

impl RedisBackendBuilder {
    /// Opens the backend: connects to the primary, checks how it is set up, and tries what the store does with it on a
    /// row of its own. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`RedisError::Away`] for a database that can't be reached for [as long as it is tried](Self::open_within).
    /// [`RedisError::Refused`] at once for one that will refuse again; [`RedisError::Unsupported`],
    /// [`RedisError::ClaimIgnored`], [`RedisError::Evicts`] and [`RedisError::NotDurable`] for one that would not keep
    /// what the store promises.
    ///
    /// # Cancel safety
    /// If the future is dropped, a row of the trial may be there, which expires in a minute.
    pub async fn open(self) -> Result<RedisBackend, RedisError> {
        if self.needs_tls && matches!(self.connector.tls, Tls::Without) {
            let reason =
                "missing, and the URL begins with rediss: set it by `RedisBackendBuilder::tls` (feature `rustls`)";
            return Err(RedisError::Option { option: "the TLS configuration", reason });
        }
        let (waited, keys) = (self.open_within, Keys::new(&self.namespace));
        let connector = Arc::new(Connector { key: keys.named("m"), ..self.connector.clone() });
        let (pool, changes) = (Pool::new(Arc::clone(&connector), self.connections), Arc::new(ChangeFeed::default()));
        let listening = listen(connector, keys.named("c"), Arc::clone(&changes), Arc::clone(&pool.dropped));
        let (limit, scripts, calls) = (watch::Sender::default(), Scripts::new(), AtomicU64::new(0));
        let marker = u128::from_le_bytes(random());
        let database = Database { settings: self, pool, keys, limit, scripts, marker, calls };
        let backend = RedisBackend { database, changes, _listening: Task(tokio::spawn(listening)) };
        let hangs = "it does not answer".to_owned();
        let tried = tried(Instant::now() + waited, hangs, || attempt(&backend)).await;
        tried.map_err(|error| match error {
            NotOpen::Away(reason) => RedisError::Away { waited, reason },
            NotOpen::ForGood(error) => error,
        })?;
        Ok(backend)
    }
}

/// Connects, looks how the server is set up, and tries what the store does.
async fn attempt(backend: &RedisBackend) -> Opened<()> {
    let database = &backend.database;
    // The connection's own errors say more than those of a call.
    let setup = database.pool.connector.connect(0).await?.setup;
    let RedisBackendBuilder { durability, accepted, .. } = database.settings;
    if let Some((_, error)) = setup.and_then(|setup| setup.fault(durability, accepted)) {
        return Err(NotConnected::ForGood(error));
    }
    // The error for an unknown command has its parameters, which must be text: without an engine, so must these be.
    let (mut publish, mut script) = (cmd("PUBLISH"), cmd("EVAL"));
    publish.arg(database.keys.named("c")).arg("");
    script.arg("return 1").arg(0);
    let answers = database.command(vec![script, publish]).await.map_err(not_connected)?;
    let [scripted, published] = answers.as_slice() else { return Err(refused("two commands have other answers")) };
    if let Value::ServerError(error) = scripted {
        return Err(not_connected(error));
    }
    if let Value::ServerError(error) = published {
        let pattern = database.keys.named("*");
        return Err(refused(format!("{error}; the user needs the rights ~{pattern} &{pattern} +publish")));
    }
    // A row is claimed twice, another claim of it comes too late, and it ends.
    let id = RecordId::from_bytes(random());
    let claim = || Write {
        id,
        expect: Expect::Absent,
        token: Token(random()),
        fence: NewFence::Above(Fence(0)),
        kind: Kind::Running,
        session: None,
        until: None,
        began: Stamp::Now,
        since: Stamp::Now,
        expires: NewExpiry::In(TRIAL),
        state: Vec::new().into(),
    };
    let (first, late) = (claim(), claim());
    let end = Write { expect: Expect::Token(first.token), fence: NewFence::Keep, kind: Kind::Released, ..claim() };
    for (write, is_done) in [(&first, true), (&first, true), (&late, false), (&end, true)] {
        let row = match backend.put(Clocks::default(), std::slice::from_ref(write)).await {
            // Known keys get their answers, and new ones are refused.
            Err(BackendError::Full(_)) => return Ok(()),
            answer => answer.map_err(not_connected)?.rows.pop().flatten(),
        };
        if row.is_some_and(|row| row.token == write.token) != is_done {
            return Err(NotConnected::ForGood(RedisError::ClaimIgnored));
        }
    }
    Ok(())
}
