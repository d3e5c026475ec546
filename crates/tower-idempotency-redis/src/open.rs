//! How a builder becomes a backend.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::{Instant, sleep, timeout_at};
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{Backend as _, Clocks, Expect, Kind, NewExpiry, NewFence, Stamp, Token, Write};

use super::backend::RedisBackend;
use super::builder::RedisBackendBuilder;
use super::changes::{ChangeFeed, listen};
use super::connection::connect::Connector;
use super::connection::dial::{Dialer, Task, Tls};
use super::connection::pool::Pool;
use super::database::{Database, Fill};
use super::error::{NotConnected, RedisError};
use super::guarantee::Setup;
use super::keys::Keys;
use super::script::Scripts;

/// The pause between two tries.
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(200);
/// The time for which the row of the trial is kept.
const TRIAL: Duration = Duration::from_secs(60);

impl RedisBackendBuilder {
    /// Opens the backend: connects to the primary, checks how it is set up, and tries what the store does with it on a
    /// row of its own. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`RedisError::Away`] for a database that can't be reached for [as long as it is tried](Self::open_within).
    /// [`RedisError::Evicts`], [`RedisError::NotDurable`] and [`RedisError::Refused`] at once for one that will refuse
    /// again, or that would not keep what the store promises.
    ///
    /// # Cancel safety
    /// If the future is dropped, a row of the trial may be there, which expires in a minute.
    pub async fn open(self) -> Result<RedisBackend, RedisError> {
        if self.needs_tls && matches!(self.tls, Tls::Without) {
            let reason = "missing, and the URL begins with rediss: set it by `RedisBackendBuilder::tls`";
            return Err(RedisError::Option { option: "the TLS configuration", reason });
        }
        let keys = Keys::new(&self.namespace);
        let connector = Arc::new(Connector {
            dialer: Dialer { tls: self.tls, within: self.wait_for_connection },
            place: self.place,
            login: self.login,
            sentinels: self.sentinels,
            slot: keys.slot(),
        });
        let channel = keys.channel();
        let database = Arc::new(Database {
            pool: Pool::new(Arc::clone(&connector), self.connections, self.wait_for_connection),
            keys,
            durability: self.durability,
            fill: Fill::default(),
            accepts_eviction: self.accepted.eviction,
            scripts: Scripts::new(),
            marker: format!("{:032x}", u128::from_le_bytes(random()?)),
            calls: AtomicU64::new(0),
            response_timeout: self.response_timeout,
            wait_for_replicas: self.wait_for_replicas,
        });
        let changes = Arc::new(ChangeFeed::new());
        let (namespace, accepted) = (self.namespace, self.accepted);
        let mut backend = RedisBackend { database, namespace, accepted, changes, listening: None };
        let deadline = Instant::now() + self.open_within;
        let late = |reason| RedisError::Away { waited: self.open_within, reason };
        let mut reason = "it does not answer".to_owned();
        loop {
            let attempt = async {
                // The connection's own errors say more than those of a call.
                drop(connector.connect(0).await?);
                let setup = Setup::ask(&backend.database).await.map_err(NotConnected::of)?;
                setup.check(self.durability, self.accepted).map_err(NotConnected::ForGood)?;
                try_out(&backend).await
            };
            match timeout_at(deadline, attempt).await {
                Ok(Ok(())) => break,
                Ok(Err(NotConnected::ForGood(error))) => return Err(error),
                Ok(Err(NotConnected::Away(why))) => reason = why,
                Err(_) => return Err(late(reason)),
            }
            if Instant::now() + OPEN_RETRY_DELAY >= deadline {
                return Err(late(reason));
            }
            sleep(OPEN_RETRY_DELAY).await;
        }
        let (changes, dropped) = (Arc::clone(&backend.changes), Arc::clone(&backend.database.pool.dropped));
        backend.listening = Some(Task(tokio::spawn(listen(connector, channel, changes, dropped))));
        Ok(backend)
    }
}

fn random<const N: usize>() -> Result<[u8; N], RedisError> {
    let mut bytes = [0; N];
    let failed = |error| RedisError::Refused { reason: format!("the operating system gives no random bytes: {error}") };
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Publishes, claims a row twice, lets another claim of it come too late, and ends it.
async fn try_out(backend: &RedisBackend) -> Result<(), NotConnected> {
    let database = &backend.database;
    let mut publish = cmd("PUBLISH");
    publish.arg(database.keys.channel()).arg("");
    let published = database.command(vec![publish]).await.map_err(NotConnected::of)?;
    if let Some(Value::ServerError(error)) = published.first() {
        let pattern = database.keys.pattern();
        return Err(NotConnected::refused(format!(
            "{error}; the user needs the rights ~{pattern} &{pattern} +publish"
        )));
    }
    let id = RecordId::from_bytes(random().map_err(NotConnected::ForGood)?);
    let token = || random().map(Token).map_err(NotConnected::ForGood);
    let claim = |token| Write {
        id,
        expect: Expect::Absent,
        token,
        fence: NewFence::Above(Fence(0)),
        kind: Kind::Running,
        session: None,
        until: None,
        began: Stamp::Now,
        since: Stamp::Now,
        expires: NewExpiry::In(TRIAL),
        state: Vec::new().into(),
    };
    let (first, late) = (claim(token()?), claim(token()?));
    let expect = Expect::Token(first.token);
    let end = Write { expect, fence: NewFence::Keep, kind: Kind::Released, ..claim(token()?) };
    for (write, is_done) in [(&first, true), (&first, true), (&late, false), (&end, true)] {
        let answer = backend.put(Clocks::default(), std::slice::from_ref(write)).await;
        let row = answer.map_err(NotConnected::of)?.rows.pop().flatten();
        if row.is_some_and(|row| row.token == write.token) != is_done {
            return Err(NotConnected::refused("the server does not compare and set rows as its script says"));
        }
    }
    Ok(())
}
