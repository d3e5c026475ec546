//! Which host is the primary. It is asked for each new connection.

use redis::{Cmd, RedisConnectionInfo, Value};

use super::dial::{Dialer, Host, in_time};
use crate::error::NotConnected;
use crate::wire::row::text;

/// Where the primary is, or who knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// One server, or a name that leads to the primary.
    Server(Host),
    /// Sentinels that know the primary of this name.
    Sentinels { hosts: Vec<Host>, name: String },
    /// Nodes of a cluster, each of which knows the primary of a slot.
    Cluster(Vec<Host>),
}

impl Place {
    /// Returns the primary: of `slot`, in a cluster. `login` is for its nodes, and `sentinels` for sentinels.
    pub(crate) async fn primary(
        &self,
        dialer: &Dialer,
        slot: u16,
        login: &RedisConnectionInfo,
        sentinels: &RedisConnectionInfo,
    ) -> Result<Host, NotConnected> {
        let (hosts, login, command) = match self {
            Self::Server(host) => return Ok(host.clone()),
            Self::Sentinels { hosts, name } => {
                (hosts, sentinels, ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name].to_vec())
            }
            Self::Cluster(hosts) => (hosts, login, ["CLUSTER", "SHARDS"].to_vec()),
        };
        let mut reasons = Vec::new();
        // One that does not answer must not keep the others from being asked.
        let share = dialer.within / u32::try_from(hosts.len() + 1).unwrap_or(u32::MAX);
        for host in hosts {
            let asked = async {
                let (mut connection, _task) = dialer.commands(host, login).await?;
                let answer = connection.send_packed_command(Cmd::new().arg(command.as_slice())).await;
                answer.map_err(|error| NotConnected::at(host, &error))
            };
            match in_time(host, share, asked).await {
                Ok(answer) => {
                    let found = match self {
                        Self::Cluster(_) => primary_of(&answer, slot, dialer.is_encrypted()),
                        _ => sentinel_answer(&answer),
                    };
                    match found {
                        // A node that does not know its own name leaves it out.
                        Some(found) if found.name.is_empty() => return Ok(Host { name: host.name.clone(), ..found }),
                        Some(found) => return Ok(found),
                        None => reasons.push(format!("{host} knows no primary")),
                    }
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(NotConnected::Away(reasons.join("; ")))
    }
}

/// The answer of a sentinel: a host and a port.
fn sentinel_answer(answer: &Value) -> Option<Host> {
    let Value::Array(parts) = answer else { return None };
    let [name, port] = parts.as_slice() else { return None };
    Some(Host { name: string(name)?, port: string(port)?.parse().ok()? })
}

/// The primary of a slot that is online, by the answer to `CLUSTER SHARDS`.
fn primary_of(answer: &Value, slot: u16, is_encrypted: bool) -> Option<Host> {
    let Value::Array(shards) = answer else { return None };
    let shard = shards.iter().find(|shard| {
        let Some(Value::Array(slots)) = member(shard, "slots") else { return false };
        slots.chunks(2).any(|range| match range {
            [Value::Int(first), Value::Int(last)] => (*first..=*last).contains(&i64::from(slot)),
            _ => false,
        })
    })?;
    let Some(Value::Array(nodes)) = member(shard, "nodes") else { return None };
    let is = |node: &Value, name: &str, value: &str| member(node, name).and_then(string).as_deref() == Some(value);
    let node = nodes.iter().find(|node| is(node, "role", "master") && is(node, "health", "online"))?;
    let port = member(node, if is_encrypted { "tls-port" } else { "port" });
    let Some(Value::Int(port)) = port else { return None };
    let name = member(node, "endpoint").and_then(string).filter(|name| name != "?").unwrap_or_default();
    Some(Host { name, port: u16::try_from(*port).ok()? })
}

/// The value of a name, in a map that is a list of names and values.
fn member<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Array(parts) = map else { return None };
    let pair = parts.chunks(2).find(|pair| string(&pair[0]).as_deref() == Some(name))?;
    pair.get(1)
}

fn string(value: &Value) -> Option<String> {
    text(value.clone()).and_then(|text| String::from_utf8(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &str) -> Value {
        Value::BulkString(words.into())
    }

    fn shard(slots: &[i64], nodes: &[(&str, &str, &str)]) -> Value {
        let node = |&(endpoint, role, health): &(&str, &str, &str)| {
            let parts = ["endpoint", endpoint, "role", role, "health", health].map(words);
            Value::Array(
                parts.into_iter().chain([words("port"), Value::Int(7), words("tls-port"), Value::Int(8)]).collect(),
            )
        };
        let slots = Value::Array(slots.iter().map(|slot| Value::Int(*slot)).collect());
        Value::Array(vec![words("slots"), slots, words("nodes"), Value::Array(nodes.iter().map(node).collect())])
    }

    #[test]
    fn the_primary_of_a_slot_is_the_master_that_is_online() {
        let answer = Value::Array(vec![
            shard(&[0, 99], &[("a", "master", "online")]),
            shard(
                &[100, 199, 300, 400],
                &[("b", "master", "fail"), ("c", "replica", "online"), ("d", "master", "online")],
            ),
            shard(&[200, 299], &[("", "master", "online")]),
        ]);
        let at = |slot, tls| primary_of(&answer, slot, tls).map(|host| (host.name, host.port));
        assert_eq!(at(99, false), Some(("a".to_owned(), 7)));
        assert_eq!(at(350, true), Some(("d".to_owned(), 8)));
        assert_eq!(at(250, false), Some((String::new(), 7)), "it is the node that was asked");
        assert_eq!(at(500, false), None);
    }

    #[test]
    fn a_sentinel_names_a_host_and_a_port() {
        let answer = Value::Array(vec![words("10.0.0.1"), words("6379")]);
        assert_eq!(sentinel_answer(&answer), Some(Host { name: "10.0.0.1".to_owned(), port: 6379 }));
        assert_eq!(sentinel_answer(&Value::Nil), None);
    }
}
