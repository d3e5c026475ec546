//! One connection to the primary, for one call at a time.

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{Pipeline, RedisConnectionInfo, Value, cmd};

use super::dial::{Dialer, Host, Task};
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
        let (mut commands, task) = self.dialer.commands(&host, &self.login).await?;
        let asked = async {
            let mut pipeline = Pipeline::new();
            pipeline.add_command(cmd("ROLE"));
            let mut info = cmd("INFO");
            info.arg("server");
            pipeline.add_command(info);
            let answers = commands.send_packed_commands(&pipeline, 0, 2).await;
            let answers = answers.and_then(|answers| Value::Array(answers).extract_error());
            answers.map_err(|error| NotConnected::of(&host.to_string(), &error))
        };
        let answers = self.dialer.in_time(&host, asked).await?;
        let (role, info) = match answers {
            Value::Array(answers) => match <[Value; 2]>::try_from(answers) {
                Ok([Value::Array(role), info]) => (role.into_iter().next().and_then(text), text(info)),
                _ => (None, None),
            },
            _ => (None, None),
        };
        match role.as_deref() {
            Some(b"master") => {}
            role => {
                let role = String::from_utf8_lossy(role.unwrap_or(b"unknown")).into_owned();
                return Err(NotConnected::Away(format!("{host} is no primary: its role is {role}")));
            }
        }
        let info = String::from_utf8_lossy(&info.unwrap_or_default()).into_owned();
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        let run_id = run_id.ok_or_else(|| NotConnected::refused(format!("{host} has no run id")))?.trim().to_owned();
        Ok(Connection { commands, run_id, generation, task })
    }

    /// Connects to hear what is published.
    pub(crate) async fn listen(&self, channel: &str) -> Result<PubSub, NotConnected> {
        let host = self.primary().await?;
        let listen = async {
            let stream = self.dialer.stream(&host).await?;
            let listening = async {
                let mut listener = PubSub::new(&self.login, stream).await?;
                listener.subscribe(channel).await?;
                Ok(listener)
            };
            listening.await.map_err(|error| NotConnected::of(&host.to_string(), &error))
        };
        self.dialer.in_time(&host, listen).await
    }

    async fn primary(&self) -> Result<Host, NotConnected> {
        self.place.primary(&self.dialer, self.slot, &self.login, &self.sentinels).await
    }
}
