//! How a builder becomes a backend.

use std::sync::Arc;
use std::time::Duration;

use redis::pipe;
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
use super::connection::connect::Connector;
use super::connection::pool::Pool;
use super::database::Database;
use super::error::{NotConnected, Opened, RedisError, not_connected};
use super::script::{Keys, Scripts};

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
        let (waited, keys) = (self.open_within, Keys::new(&self.namespace));
        let of_store = Connector { key: keys.named("none"), generation: Arc::default(), ..self.connector.clone() };
        let connector = Arc::new(of_store);
        let (pool, changes) = (Pool::new(Arc::clone(&connector), self.connections), Arc::new(ChangeFeed::default()));
        let listening = listen(connector, keys.named("c"), Arc::clone(&changes), Arc::clone(&pool.dropped));
        let (limit, off, scripts) = (watch::Sender::default(), watch::Sender::default(), Scripts::new());
        let process = format!("{:032x}", u128::from_le_bytes(random()));
        let database = Database { settings: self, pool, keys, limit, off, scripts, process };
        let backend = RedisBackend { database, changes, _listening: Task(tokio::spawn(listening)) };
        let hangs = "it does not answer".to_owned();
        match tried(Instant::now() + waited, hangs, || attempt(&backend)).await {
            Ok(()) => Ok(backend),
            Err(NotOpen::Away(reason)) => Err(RedisError::Away { waited, reason }),
            Err(NotOpen::ForGood(error)) => Err(error),
        }
    }
}

/// Connects, looks how the server is set up, and tries what the store does.
async fn attempt(backend: &RedisBackend) -> Opened<()> {
    let database = &backend.database;
    // The connection's own errors say more than those of a call.
    let setup = database.pool.connector.connect().await?.setup;
    let RedisBackendBuilder { durability, accepted, .. } = database.settings;
    if let Some((error, setup)) = setup.and_then(|setup| Some((setup.fault(durability, accepted)?.1, setup))) {
        let is_passing = setup.makes_file() && matches!(error, RedisError::NotDurable { .. });
        return Err(if is_passing { NotConnected::Away(error.to_string()) } else { NotConnected::ForGood(error) });
    }
    // The error for an unknown command has its parameters, which must be text: without an engine, so must these be.
    let (mut commands, named) = (pipe(), |name| database.keys.named(name));
    commands.cmd("EVAL").arg("return 1").arg(0).cmd("PUBLISH").arg(named("c")).arg("").cmd("UNLINK").arg(named("none"));
    let answers = database.command(commands).await.map_err(not_connected)?;
    let hint = format!("; the user needs the rights ~{0} &{0} +publish +unlink", named("*"));
    for (answer, hint) in answers.into_iter().zip(["", &hint, &hint]) {
        answer.extract_error().map_err(|error| not_connected(format!("{error}{hint}")))?;
    }
    backend.sessions(Clocks::default()).await.map_err(not_connected)?;
    // A row is claimed twice, another claim of it comes too late, and it ends. It is kept for a minute.
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
        expires: NewExpiry::In(Duration::from_secs(60)),
        state: Vec::new().into(),
    };
    let (first, late) = (claim(), claim());
    let end = Write { expect: Expect::Token(first.token), fence: NewFence::Keep, kind: Kind::Released, ..claim() };
    for (write, is_done) in [(&first, true), (&first, true), (&late, false), (&end, true)] {
        let tried = match backend.put(Clocks::default(), std::slice::from_ref(write)).await {
            Ok(answer) if answer.rows.iter().flatten().any(|row| row.token == write.token) == is_done => continue,
            Ok(_) => Err(NotConnected::ForGood(RedisError::ClaimIgnored)),
            // Known keys get their answers, and new ones are refused.
            Err(BackendError::Full(_)) => Ok(()),
            Err(error) => Err(not_connected(error)),
        };
        // Otherwise operators would see the row as an interrupted run.
        let _ = backend.put(Clocks::default(), std::slice::from_ref(&end)).await;
        return tried;
    }
    Ok(())
}
