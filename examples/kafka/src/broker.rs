//! The brokers: librdkafka's own cluster, within this process, and tansu, a broker that speaks Kafka's protocol.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use testkit::dice::free_address;

use crate::Failure;
use crate::consumer::{DEAD_LETTERS, ORDERS};
use crate::run::PARTITIONS;

const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// The answer to a commit that is lost.
const LOST: [RDKafkaRespErr; 1_000] = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 1_000];

/// Runs the broker until the standard input ends, which it does when this process ends in any way,
/// Ctrl-C included.
const GUARD: &str = r#"
trap '' INT TERM HUP
"$@" </dev/null & broker=$!
read -r _
kill -s KILL $broker
wait $broker
"#;

/// A broker with the topic of the orders, for as long as this lives.
pub(crate) enum Broker {
    Mock(MockCluster<'static, DefaultProducerContext>),
    Tansu { guard: Child, address: String },
}

impl Broker {
    /// Starts librdkafka's own cluster, which other processes reach over TCP.
    pub(crate) fn mock() -> Result<Self, Failure> {
        let cluster = MockCluster::new(1)?;
        cluster.create_topic(ORDERS, PARTITIONS, 1)?;
        cluster.create_topic(DEAD_LETTERS, 1, 1)?;
        Ok(Self::Mock(cluster))
    }

    /// Starts tansu, with its records in memory. The program is `TANSU`, or the one in the path.
    pub(crate) fn tansu() -> Result<Self, Failure> {
        let program = std::env::var("TANSU").unwrap_or_else(|_| "tansu".to_owned());
        let address = free_address().to_string();
        let url = format!("tcp://{address}");
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard", &program, "broker", "--storage-engine", "memory://tansu/"]);
        guard.args(["--listener-url", &url, "--advertised-listener-url", &url]);
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let broker = Self::Tansu { guard, address };
        let began = Instant::now();
        for (topic, partitions) in [(ORDERS, PARTITIONS), (DEAD_LETTERS, 1)] {
            let mut create = Command::new(&program);
            create.args(["topic", "create", "--broker", &url, topic, "--partitions", &partitions.to_string()]);
            create.stdout(Stdio::null()).stderr(Stdio::null());
            let mut is_created =
                || create.status().map_err(|error| format!("tansu can't be run ({error}): set TANSU to its path"));
            // Until the broker listens.
            while !is_created()?.success() {
                if began.elapsed() > STARTS_WITHIN {
                    return Err("tansu does not start".into());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(broker)
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Mock(cluster) => cluster.bootstrap_servers(),
            Self::Tansu { address, .. } => address.clone(),
        }
    }

    /// Loses all commits of offsets from now on, or no more. Only librdkafka's cluster fails on command.
    pub(crate) fn lose_commits(&self, loses: bool) {
        let Self::Mock(cluster) = self else { return };
        match loses {
            // Each is for one request; there are fewer.
            true => cluster.request_errors(RDKafkaApiKey::OffsetCommit, &LOST),
            false => cluster.clear_request_errors(RDKafkaApiKey::OffsetCommit),
        }
    }

    /// After how many orders a consumer commits: early where commits are lost, and otherwise after it is killed.
    pub(crate) fn commit_every(&self) -> usize {
        if let Self::Mock(_) = self { 10 } else { 500 }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Self::Tansu { guard, .. } = self {
            // The guard reads the end of its input, and kills the broker.
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}
