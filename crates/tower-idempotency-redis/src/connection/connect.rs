//! One connection to the primary, for one call at a time.

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{Pipeline, RedisConnectionInfo, Value};

use super::dial::{Dialer, Host, Task, in_time};
use super::place::Place;
use crate::error::NotConnected;
use crate::wire::row::text;

/// A connection.
pub(crate) struct Connection {
    pub(crate) commands: MultiplexedConnection,
    /// The number of the server's start.
    pub(crate) run_id: String,
    /// The policy by which the server deletes keys when its memory is full, until a call has looked at it.
    pub(crate) policy: Option<String>,
    /// The generation of the pool in which it was made. One of an earlier generation is not used again.
    pub(crate) generation: u64,
    task: Task,
}

impl Connection {
    /// Returns whether its task has ended, as it does when the server closes it.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.0.is_finished()
    }
}

/// Makes connections to the primary.
pub(crate) struct Connector {
    pub(crate) dialer: Dialer,
    pub(crate) place: Place,
    pub(crate) login: RedisConnectionInfo,
    pub(crate) sentinels: RedisConnectionInfo,
    pub(crate) slot: u16,
}

impl Connector {
    /// Connects to the primary, and checks that it is one.
    pub(crate) async fn connect(&self, generation: u64) -> Result<Connection, NotConnected> {
        let host = self.primary().await?;
        let talk = async {
            let (mut commands, task) = self.dialer.commands(&host, &self.login).await?;
            let mut pipeline = Pipeline::new();
            pipeline.cmd("ROLE").cmd("INFO").arg("server").cmd("INFO").arg("memory");
            let answers = commands.send_packed_commands(&pipeline, 0, 3).await;
            let answers = answers.and_then(|answers| Value::Array(answers).extract_error());
            let answers = answers.map_err(|error| NotConnected::at(&host, &error))?;
            let (role, run_id, policy) = read(answers).unwrap_or_default();
            if role != "master" {
                return Err(NotConnected::Away(format!("{host} is no primary: its role is {role}")));
            }
            Ok(Connection { commands, run_id, policy, generation, task })
        };
        in_time(&host, self.dialer.within, talk).await
    }

    /// Connects to hear what is published.
    pub(crate) async fn listen(&self, channel: &str) -> Result<PubSub, NotConnected> {
        let host = self.primary().await?;
        let talk = async {
            let stream = self.dialer.stream(&host).await?;
            let listening = async {
                let mut listener = PubSub::new(&self.login, stream).await?;
                listener.subscribe(channel).await?;
                Ok(listener)
            };
            listening.await.map_err(|error| NotConnected::at(&host, &error))
        };
        in_time(&host, self.dialer.within, talk).await
    }

    async fn primary(&self) -> Result<Host, NotConnected> {
        self.place.primary(&self.dialer, self.slot, &self.login, &self.sentinels).await
    }
}

/// Returns whether a server with this `maxmemory-policy` may delete keys without a time to live: all of this crate's.
pub(crate) fn evicts(policy: &str) -> bool {
    !(policy == "noeviction" || policy.starts_with("volatile-"))
}

/// The role, the run id and the policy, by the answers to `ROLE`, `INFO server` and `INFO memory`.
fn read(answers: Value) -> Option<(String, String, Option<String>)> {
    let Value::Array(answers) = answers else { return None };
    let [Value::Array(role), server, memory] = <[Value; 3]>::try_from(answers).ok()? else { return None };
    let line = |section: Value, name: &str| {
        let section = String::from_utf8(text(section)?).ok()?;
        section.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let role = String::from_utf8(text(role.into_iter().next()?)?).ok()?;
    Some((role, line(server, "run_id:")?, line(memory, "maxmemory_policy:")))
}
