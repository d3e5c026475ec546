//! A run: orders are produced, and the consumers' process is killed while it works.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::time::sleep;

use crate::Failure;
use crate::broker::Broker;
use crate::consumer::{DEAD_LETTERS, GROUP, ID, ORDERS};
use crate::mailer::Mailer;
use crate::notes::Notes;

pub(crate) const PARTITIONS: i32 = 4;
const ORDERS_IN_ALL: usize = 1_500;
/// The order that the producer has sent without an id.
const WITHOUT_ID: usize = 17;
/// How many orders are delivered again at least.
pub(crate) const REDELIVERED: usize = 200;
/// How often the process is killed for that at most, and after how many deliveries.
const MOST_KILLS: usize = 10;
const KILLED_AFTER: usize = 250;
/// How long a run takes at most.
const GIVE_UP: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(5);

/// What came of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum {
    /// Deliveries of orders.
    pub(crate) deliveries: usize,
    /// Those of a record that was delivered before.
    pub(crate) redelivered: usize,
    /// Commits of offsets that failed.
    pub(crate) commits_lost: usize,
    /// How often partitions were revoked while their consumer worked.
    pub(crate) revocations: usize,
    /// Mails that were sent.
    pub(crate) mails: u64,
    /// Orders whose mail was sent more than once.
    pub(crate) twice: usize,
    /// Orders whose mail was not sent, and that are not among the dead letters.
    pub(crate) lost: usize,
    /// Dead letters: the one order without an id, once or more often.
    pub(crate) set_aside: usize,
}

/// Produces orders, and consumes them until all are committed, by a process that is killed until so many were
/// delivered again.
#[allow(clippy::future_not_send, reason = "librdkafka's cluster stays in its thread")]
pub(crate) async fn run(broker: &Broker, with_crate: bool) -> Result<Sum, Failure> {
    let (directory, address, gives_up) = (tempfile::tempdir()?, broker.address(), Instant::now() + GIVE_UP);
    let (notes, start) = (Notes::of(directory.path()), || Process::start(broker, directory.path(), with_crate));
    produce(&address).await?;
    broker.lose_commits(true);
    for _ in 0..MOST_KILLS {
        if notes.redelivered() >= REDELIVERED {
            break;
        }
        let (mut process, enough) = (start()?, notes.deliveries() + KILLED_AFTER);
        process.until(gives_up, || notes.deliveries() >= enough).await?;
    }
    broker.lose_commits(false);
    let watch: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &address).set("group.id", GROUP).create()?;
    // An error: the broker does not know yet.
    start()?.until(gives_up, || committed(&watch).is_ok_and(|records| records >= ORDERS_IN_ALL)).await?;
    let set_aside = usize::try_from(watch.fetch_watermarks(DEAD_LETTERS, 0, Duration::from_secs(10))?.1)?;
    let counts = Mailer::of(directory.path()).counts();
    let is_lost = |number: &usize| {
        let is_set_aside = *number == WITHOUT_ID && set_aside > 0;
        !is_set_aside && !counts.contains_key(&text_of(*number))
    };
    Ok(Sum {
        deliveries: notes.deliveries(),
        redelivered: notes.redelivered(),
        commits_lost: notes.commits_lost(),
        revocations: notes.revocations(),
        mails: counts.values().sum(),
        twice: counts.values().filter(|&&count| count > 1).count(),
        lost: (0..ORDERS_IN_ALL).filter(is_lost).count(),
        set_aside,
    })
}

fn text_of(number: usize) -> String {
    format!("order {number} is on its way")
}

async fn produce(broker: &str) -> Result<(), Failure> {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", broker).create()?;
    let mut sent = Vec::new();
    for number in 0..ORDERS_IN_ALL {
        let (id, text) = (format!("order-{number}:confirmation"), text_of(number));
        let headers = match number {
            WITHOUT_ID => OwnedHeaders::new(),
            _ => OwnedHeaders::new().insert(Header { key: ID, value: Some(&id) }),
        };
        let partition = i32::try_from(number)? % PARTITIONS;
        let record = FutureRecord::<(), _>::to(ORDERS).payload(&text).partition(partition).headers(headers);
        sent.push(producer.send_result(record).map_err(|(error, _)| error)?);
    }
    for delivery in sent {
        delivery.await?.map_err(|(error, _)| error)?;
    }
    Ok(())
}

/// How many records the group has committed.
fn committed(watch: &BaseConsumer) -> KafkaResult<usize> {
    let mut all = TopicPartitionList::new();
    all.add_partition_range(ORDERS, 0, PARTITIONS - 1);
    let all = watch.committed_offsets(all, Duration::from_secs(10))?;
    let offsets = all.elements().into_iter().map(|partition| match partition.offset() {
        Offset::Offset(offset) => usize::try_from(offset).unwrap_or(0),
        _ => 0,
    });
    Ok(offsets.sum())
}

/// The process of the consumers. It is killed when this is dropped, and ends with this process.
struct Process(Child);

impl Process {
    fn start(broker: &Broker, directory: &Path, with_crate: bool) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["member", &broker.address()]).arg(directory);
        command.args([with_crate.to_string(), broker.commit_every().to_string()]);
        // It reads to the end of its input, which this process holds open.
        Ok(Self(command.stdin(Stdio::piped()).spawn()?))
    }

    /// Looks until something has come about.
    async fn until(&mut self, gives_up: Instant, mut holds: impl FnMut() -> bool) -> Result<(), Failure> {
        while !holds() {
            if let Some(status) = self.0.try_wait()? {
                return Err(format!("the consumers have ended: {status}").into());
            }
            if Instant::now() > gives_up {
                return Err("the run takes longer than five minutes".into());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has no chance to commit what it has done. Errors: it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
