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
            pipeline.cmd("ROLE").cmd("INFO").arg("server");
            let answers = commands.send_packed_commands(&pipeline, 0, 2).await;
            let answers = answers.and_then(|answers| Value::Array(answers).extract_error());
            let answers = answers.map_err(|error| NotConnected::at(&host, &error))?;
            let (role, run_id) = role_and_run_id(answers).unwrap_or_default();
            if role != "master" {
                return Err(NotConnected::Away(format!("{host} is no primary: its role is {role}")));
            }
            Ok(Connection { commands, run_id, generation, task })
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

/// The role and the run id, by the answers to `ROLE` and `INFO server`.
fn role_and_run_id(answers: Value) -> Option<(String, String)> {
    let Value::Array(answers) = answers else { return None };
    let [Value::Array(role), info] = <[Value; 2]>::try_from(answers).ok()? else { return None };
    let info = String::from_utf8(text(info)?).ok()?;
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"))?.trim().to_owned();
    Some((String::from_utf8(text(role.into_iter().next()?)?).ok()?, run_id))
}
