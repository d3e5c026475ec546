//! A database of either system.

use std::fmt;
use std::net::SocketAddr;

use testkit::postgres::PostgresServer;
use testkit::skipped;

use super::fault::Fault;
use super::look::Look;
use super::postgres;
use super::redis::Redis;

/// A database system. Each run is a test over each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Postgres,
    Redis,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
        })
    }
}

/// Makes each of these functions a test over PostgreSQL, and one over Redis.
macro_rules! over_each_database {
    ($($test:ident)+) => {
        mod over_postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test($crate::database::System::Postgres).await;
                }
            )+
        }

        mod over_redis {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test($crate::database::System::Redis).await;
                }
            )+
        }
    };
}
pub(crate) use over_each_database;

/// A database with what the store needs. It ends when this is dropped.
pub(crate) enum Database {
    Postgres(PostgresServer),
    Redis(Redis),
}

impl Database {
    /// Starts a server. Returns `None` if the promise can't be shown here.
    pub(crate) async fn start(system: System, promise: &str) -> Option<Self> {
        Self::open(system, promise, None, false).await
    }

    /// Does the same, and breaks something.
    pub(crate) async fn broken(system: System, promise: &str, fault: Fault) -> Option<Self> {
        Self::open(system, promise, Some(fault), false).await
    }

    /// Starts a server with a clock of its own, and may break something. Returns `None` if the promise can't be shown
    /// here.
    pub(crate) async fn with_a_clock(system: System, promise: &str, fault: Option<Fault>) -> Option<Self> {
        Self::open(system, promise, fault, true).await
    }

    async fn open(system: System, promise: &str, fault: Option<Fault>, has_clock: bool) -> Option<Self> {
        let opened = match system {
            System::Postgres => postgres::open(fault, has_clock).await.map(Self::Postgres),
            System::Redis => Redis::open(fault, has_clock).map(Self::Redis),
        };
        opened.map_err(|obstacle| skipped(promise, &obstacle)).ok()
    }

    /// Starts a server that is to have a [standby](Self::standby), for which writes wait if it `is_synchronous`.
    pub(crate) async fn primary(system: System, promise: &str, is_synchronous: bool) -> Option<Self> {
        match system {
            System::Postgres => Self::start(system, promise).await,
            System::Redis => {
                let opened = Redis::primary(is_synchronous).map(Self::Redis);
                opened.map_err(|obstacle| skipped(promise, &obstacle)).ok()
            }
        }
    }

    /// Starts a standby of this server, which reaches this one at `address`.
    pub(crate) fn standby(&self, address: SocketAddr) -> Self {
        match self {
            Self::Postgres(_) => Self::Postgres(PostgresServer::standby_of(address).expect("the programs are there")),
            Self::Redis(primary) => Self::Redis(primary.standby(address)),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Postgres(server) => server.address(),
            Self::Redis(redis) => redis.server.address(),
        }
    }

    /// The URL for payment servers.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// The URL for payment servers that reach it at another address.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        match self {
            Self::Postgres(_) => format!("postgres://postgres@{address}/postgres"),
            Self::Redis(redis) => redis.url_at(address),
        }
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Postgres(server) => server.kill(),
            Self::Redis(redis) => redis.server.kill(),
        }
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        match self {
            Self::Postgres(server) => server.start_again(),
            Self::Redis(redis) => redis.server.start_again(),
        }
    }

    /// Stops its processes where they are.
    pub(crate) fn pause(&self) {
        match self {
            Self::Postgres(server) => server.pause(),
            Self::Redis(redis) => redis.server.pause(),
        }
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        match self {
            Self::Postgres(server) => server.resume(),
            Self::Redis(redis) => redis.server.resume(),
        }
    }

    /// Sets its clock so many seconds ahead of the machine's, or behind it.
    pub(crate) fn set_clock(&self, ahead: i64) {
        match self {
            Self::Postgres(server) => server.set_clock(ahead),
            Self::Redis(redis) => redis.server.set_clock(ahead),
        }
    }

    /// Looks into its rows, until it is killed.
    pub(crate) async fn look(&self) -> Look<'_> {
        match self {
            Self::Postgres(server) => Look::Postgres(postgres::sql(server).await),
            Self::Redis(redis) => Look::Redis(redis),
        }
    }

    /// Waits until the standby has what this primary has, and follows it. From then on, writes wait for it if they are
    /// to.
    pub(crate) async fn join(&self, standby: &Self, is_synchronous: bool) {
        match (self, standby) {
            (Self::Postgres(primary), Self::Postgres(standby)) => {
                postgres::join(primary, standby, is_synchronous).await;
            }
            // It was not there before it followed.
            (Self::Redis(_), Self::Redis(_)) => {}
            _ => unreachable!("a standby is of its primary's system"),
        }
    }

    /// Returns how many bytes of the log the standby lacks, as far as this primary knows.
    pub(crate) async fn behind(&self) -> i64 {
        match self {
            Self::Postgres(server) => postgres::behind(server).await,
            Self::Redis(redis) => redis.behind(),
        }
    }

    /// Makes a standby the primary.
    pub(crate) fn promote(&self) {
        match self {
            Self::Postgres(server) => server.promote(),
            Self::Redis(redis) => redis.promote(),
        }
    }

    /// Starts a server that was killed as a standby of the one at `primary`. It listens where it did.
    pub(crate) fn become_standby_of(&mut self, primary: SocketAddr) {
        match self {
            Self::Postgres(server) => server.become_standby_of(primary),
            Self::Redis(redis) => redis.become_standby_of(primary),
        }
    }
}
