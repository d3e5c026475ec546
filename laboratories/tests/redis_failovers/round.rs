//! One failover.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testkit::proxy::Proxy;
use testkit::redis::{RedisServer, own_server, server_where};
use tower_idempotency_redis::{Durability, RedisBackend};

use crate::losses::Losses;
use crate::writers::Writers;

/// The time for which the replica gets nothing before the primary is lost.
const LAG: Duration = Duration::from_millis(150);
/// The least number of writes that are answered before the replica lags; meanwhile, if they wait for no replica; and
/// after the failover.
const BEFORE: usize = 200;
const MEANWHILE: usize = 50;
const AFTER: usize = 50;
/// The time for an answer, for a connection, and for the opening. Machines under test are slow.
const GIVE_UP: Duration = Duration::from_secs(30);
const WAIT: Duration = Duration::from_millis(300);

/// The reason why the replica lags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lag {
    Stopped,
    CutOff,
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::CutOff => "cut off",
        })
    }
}

/// A primary and its replica, under load.
pub(crate) struct Round {
    primary: RedisServer,
    replica: RedisServer,
    /// The name that leads to the primary.
    name: Proxy,
    writers: Writers,
    waits: bool,
}

/// Opens a backend, as a process has one.
pub(crate) async fn open(url: &str, durability: Durability) -> RedisBackend {
    let builder = RedisBackend::from_url(url).expect("a URL").namespace("failovers").expect("a name");
    let builder = builder.durability(durability).expect("it waits for one").response_timeout(GIVE_UP);
    let builder = builder.wait_for_connection(GIVE_UP).wait_for_replicas(WAIT).open_within(GIVE_UP);
    builder.open().await.expect("the server is set up for it")
}

impl Round {
    /// Starts both servers and the writers. Returns `None` if there is no server here.
    pub(crate) async fn start(promise: &str, durability: Durability, settings: &[&str]) -> Option<Self> {
        let primary = match durability {
            Durability::Replicas { fsync: true, .. } => {
                let knows = |server: &RedisServer| server.say("COMMAND INFO WAITAOF").contains("waitaof");
                server_where(promise, settings, "a server that knows WAITAOF", knows)?
            }
            _ => own_server(promise, settings)?,
        };
        let replica = primary.replica(settings);
        let name = Proxy::to(primary.address(), |_| Some(())).await;
        let backend = open(&format!("redis://{}", name.address()), durability).await;
        let waits = matches!(durability, Durability::Replicas { .. });
        Some(Self { primary, replica, name, writers: Writers::start(backend), waits })
    }

    /// Loses the primary, and promotes the replica. Returns what is lost.
    pub(crate) async fn play(mut self, lag: Lag) -> Losses {
        self.writers.more(BEFORE).await;
        self.replica.pause();
        if lag == Lag::CutOff {
            self.primary.say("CLIENT KILL TYPE replica");
        }
        tokio::time::sleep(LAG).await;
        if !self.waits {
            self.writers.more(MEANWHILE).await;
        }
        self.primary.kill();
        self.promote();
        self.name.lead_to(self.replica.address());
        self.primary.start_again();
        self.primary.follow(self.replica.address());
        self.writers.more(AFTER).await;
        let written = self.writers.end().await;
        Losses::of(&written, &open(&self.replica.url(), Durability::Memory).await).await
    }

    /// The command is there when the replica goes on, before it is known what the system still keeps for it.
    fn promote(&self) {
        let mut promotion = TcpStream::connect(self.replica.address()).expect("the system accepts for it");
        promotion.write_all(b"REPLICAOF NO ONE\r\n").expect("the system takes it");
        self.replica.resume();
        let mut answer = [0; 3];
        promotion.read_exact(&mut answer).expect("it answers");
        assert_eq!(&answer, b"+OK");
    }
}
