//! Which host is the primary. It is asked for each new connection. After a primary was left, the search begins at the
//! next host: the one before may take itself for the primary of rows that are elsewhere.

use std::sync::atomic::Ordering::SeqCst;

use redis::{RedisResult, Value, cmd, from_redis_value};

use super::connect::{Connector, Place, in_time};
use crate::error::{NotConnected, Opened, not_connected};

impl Connector {
    /// Talks to the primary. One that is named by a sentinel or a node which knows no better may be none any more: then
    /// the next of them is asked.
    pub(crate) async fn at_primary<T, F: Future<Output = Opened<T>>>(&self, talk: impl Fn(String) -> F) -> Opened<T> {
        let hosts = match &self.place {
            Place::Server(host) => return in_time(host, self.within, talk(host.clone())).await,
            Place::Sentinels { hosts, .. } | Place::Cluster(hosts) => hosts,
        };
        let (mut failures, mut named) = (Vec::new(), Vec::new());
        // One that does not answer must not keep the others from being asked.
        let share = self.within / u32::try_from(hosts.len() + 1).unwrap_or(u32::MAX);
        for host in hosts.iter().cycle().skip(self.generation.load(SeqCst) as usize % hosts.len()).take(hosts.len()) {
            let talked = match in_time(host, share, self.ask(host)).await {
                Ok(primary) if named.contains(&primary) => continue,
                Ok(primary) => {
                    named.push(primary.clone());
                    in_time(&primary, share, talk(primary.clone())).await
                }
                Err(error) => Err(error),
            };
            match talked {
                Ok(talked) => return Ok(talked),
                Err(error) => failures.push(error),
            }
        }
        let reasons: Vec<String> = failures.iter().map(ToString::to_string).collect();
        // One that only was not reached may know it at the next try.
        let is_for_good = failures.iter().all(|error| matches!(error, NotConnected::ForGood(_)));
        let refusal = failures.pop().filter(|_| is_for_good);
        Err(refusal.unwrap_or_else(|| NotConnected::Away(reasons.join("; "))))
    }

    /// Returns the primary that a sentinel or a node names.
    async fn ask(&self, host: &str) -> Opened<String> {
        let (login, question) = match &self.place {
            Place::Sentinels { name, .. } => (&self.sentinels, vec!["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]),
            // A node that is cut off may answer reads, and takes no writes. There is no key of this name.
            _ => (&self.login, vec!["UNLINK", &self.key]),
        };
        let (mut connection, _task) = self.dial(host, login).await?;
        let answer = cmd(question[0]).arg(&question[1..]).query_async(&mut connection).await;
        match self.place {
            Place::Cluster(_) => said_by_node(answer, host),
            _ => said_by_sentinel(answer),
        }
    }
}

/// The primary by the answer of a sentinel: a name and a port.
fn said_by_sentinel(answer: RedisResult<Value>) -> Opened<String> {
    let found: Option<(String, String)> = from_redis_value(answer.map_err(not_connected)?).map_err(not_connected)?;
    let unknown = || NotConnected::Away("it knows no primary of this name".to_owned());
    found.map(|(name, port)| joined(&name, &port)).ok_or_else(unknown)
}

/// The primary by the answer of a node at `host` to a question about a key: another node that it names, or itself, also
/// while it hands the slot over.
fn said_by_node(answer: RedisResult<Value>, host: &str) -> Opened<String> {
    let Err(error) = answer else { return Ok(host.to_owned()) };
    let place = error.redirect_node().and_then(|(place, _)| place.rsplit_once(':'));
    match place {
        // It has the slot, also where it hands that over, or takes no writes now: each call says why.
        _ if matches!(error.code(), Some("ASK" | "MISCONF" | "NOREPLICAS")) => Ok(host.to_owned()),
        // A node that does not know a name leaves it out: it is that of the node that was asked.
        Some(("" | "?", port)) => Ok(format!("{}:{port}", host.rsplit_once(':').map_or(host, |(name, _)| name))),
        Some((name, port)) => Ok(joined(name, port)),
        None => Err(not_connected(error)),
    }
}

fn joined(name: &str, port: &str) -> String {
    if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn answered(answer: &str) -> RedisResult<Value> {
        parse_redis_value(answer.as_bytes()).unwrap().extract_error()
    }

    fn by_node(answer: &str) -> Option<String> {
        said_by_node(answered(answer), "[::1]:7").ok()
    }

    #[test]
    fn a_node_names_the_primary_of_a_key_or_has_it_itself() {
        assert_eq!(by_node(":0\r\n").as_deref(), Some("[::1]:7"));
        assert_eq!(by_node("-NOREPLICAS Not enough good replicas\r\n").as_deref(), Some("[::1]:7"));
        assert_eq!(by_node("-ASK 12182 10.0.0.2:8\r\n").as_deref(), Some("[::1]:7"));
        assert_eq!(by_node("-MOVED 12182 10.0.0.2:8\r\n").as_deref(), Some("10.0.0.2:8"));
        assert_eq!(by_node("-MOVED 12182 fe80::2:8\r\n").as_deref(), Some("[fe80::2]:8"));
        assert_eq!(by_node("-MOVED 12182 :8\r\n").as_deref(), Some("[::1]:8"));
        assert_eq!(by_node("-MOVED 12182 ?:8\r\n").as_deref(), Some("[::1]:8"));
        assert_eq!(by_node("-CLUSTERDOWN The cluster is down\r\n"), None);
    }

    #[test]
    fn a_sentinel_names_a_host_and_a_port() {
        let said = |answer: &str| said_by_sentinel(answered(answer));
        assert_eq!(said("*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n").unwrap(), "10.0.0.1:6379");
        assert_eq!(said("*-1\r\n").unwrap_err().to_string(), "it knows no primary of this name");
        assert!(said("-NOAUTH Authentication required.\r\n").unwrap_err().to_string().contains("Authentication"));
    }
}
