//! The consumer: what a service over Kafka looks like with this crate.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, ClientContext};
use tokio::time::{sleep, timeout};
use tower_idempotency::engine::{Advice, EffectError, OnceContext, Reconciled, Reconciler};
use tower_idempotency::{Fingerprint, Key, Once, RecordId, Scope, SledStore};

use crate::mailer::Mailer;
use crate::notes::Notes;

pub(crate) const ORDERS: &str = "orders";
pub(crate) const DEAD_LETTERS: &str = "orders.dead";
pub(crate) const GROUP: &str = "mailer";
/// The header with the producer's id of an order. An offset is none: a producer that sends again gets another one.
pub(crate) const ID: &str = "id";

/// After how long without an order offsets are committed.
const COMMIT_AFTER: Duration = Duration::from_millis(200);
/// Kafka delivers nothing again by itself.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// An order must have ended before Kafka takes its partition away (`max.poll.interval.ms`, 5 minutes).
const MAX_RUN: Duration = Duration::from_secs(60);
/// Kafka keeps records for seven days, unless the topic says otherwise.
const RETENTION: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// What happens when partitions come and go.
pub(crate) struct Partitions {
    notes: Notes,
    /// Orders that have ended since the partitions came.
    ended: AtomicUsize,
}

impl ClientContext for Partitions {}

impl ConsumerContext for Partitions {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(_) = rebalance {
            // First drain: this is called between two orders, so no effect is under way, and what has ended is
            // committed here, if the broker takes it. Only then the partitions are given up. In the other order, the
            // next consumer would get all orders that have just ended; the store makes up for those, too.
            let _ = consumer.commit_consumer_state(CommitMode::Sync);
            if self.ended.swap(0, Ordering::SeqCst) > 0 {
                self.notes.revoked();
            }
        }
    }
}

/// Consumes orders, one after the other, and commits the offsets of those that have ended, so many at a time.
///
/// A commit holds up the thread. A service gives each of its consumers a task of its own.
pub(crate) async fn consume(
    broker: &str,
    commit_every: usize,
    notes: &Notes,
    mut handle: impl AsyncFnMut(&BorrowedMessage<'_>) -> Advice,
) -> KafkaResult<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker).set("group.id", GROUP).set("auto.offset.reset", "earliest");
    // Short, because consumers are killed here, and the next ones wait so long for their partitions. A broker may
    // refuse less.
    config.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "200");
    // An offset is stored by hand, once its effect has ended.
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    let partitions = Partitions { notes: notes.clone(), ended: AtomicUsize::new(0) };
    let consumer: StreamConsumer<Partitions> = config.create_with_context(partitions)?;
    let ended = &consumer.context().ended;
    consumer.subscribe(&[ORDERS])?;
    let dead_letters: FutureProducer = ClientConfig::new().set("bootstrap.servers", broker).create()?;
    let mut uncommitted = 0;
    loop {
        match timeout(COMMIT_AFTER, consumer.recv()).await {
            Ok(Ok(order)) => {
                notes.delivered(order.partition(), order.offset());
                loop {
                    match handle(&order).await {
                        Advice::Acknowledge => break,
                        Advice::HandOver if set_aside(&dead_letters, &order).await.is_ok() => break,
                        Advice::HandOver | Advice::Redeliver => sleep(TRY_AGAIN_AFTER).await,
                    }
                }
                // Without its offset, the order comes again.
                let _ = consumer.store_offset_from_message(&order);
                ended.fetch_add(1, Ordering::SeqCst);
                uncommitted += 1;
                if uncommitted < commit_every {
                    continue;
                }
            }
            Ok(Err(fatal @ KafkaError::MessageConsumptionFatal(_))) => return Err(fatal),
            // The broker is away for a while.
            Ok(Err(_)) => continue,
            Err(_) if uncommitted == 0 => continue,
            Err(_) => {}
        }
        match consumer.commit_consumer_state(CommitMode::Sync) {
            // Without an offset: they were committed when their partition was revoked.
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => uncommitted = 0,
            // It is tried again later. If the process is killed before that, the store makes up for it.
            Err(_) => notes.commit_lost(),
        }
    }
}

/// Puts an order to the dead letters, for an operator.
async fn set_aside(dead_letters: &FutureProducer, order: &BorrowedMessage<'_>) -> KafkaResult<()> {
    let mut copy = FutureRecord::<[u8], [u8]>::to(DEAD_LETTERS).payload(order.payload().unwrap_or_default());
    copy.headers = order.headers().map(BorrowedHeaders::detach);
    dead_letters.send(copy, Timeout::Never).await.map(drop).map_err(|(error, _)| error)
}

/// The consumers of one process share this. What a killed process has left is settled by asking the mail server.
///
/// Consumers in several processes need a store that they share: `PostgresStore` in place of `SledStore`.
pub(crate) fn once(store: SledStore, mailer: &Mailer) -> Once<SledStore, ()> {
    let mailer = mailer.clone();
    let reconciler = Reconciler::new(move |run| {
        let mailer = mailer.clone();
        async move {
            match run.derived_key("mail").map(|key| mailer.has_sent(&key)) {
                Some(true) => Reconciled::Outcome(()),
                Some(false) => Reconciled::RunAgain,
                None => Reconciled::StillUnknown,
            }
        }
    });
    Once::new(store).reconcile_with(reconciler).max_run(MAX_RUN).retention(RETENTION)
}

/// Sends the mail of an order once, however often the order is delivered.
pub(crate) async fn send_once(once: &Once<SledStore, ()>, mailer: &Mailer, order: &BorrowedMessage<'_>) -> Advice {
    let text = order.payload().unwrap_or_default().to_vec();
    let Some(id) = id_of(order).and_then(|id| Key::new(id).ok()) else { return Advice::HandOver };
    let Ok(scope) = Scope::new("mailer") else { return Advice::HandOver };
    let (mailer, id, fingerprint) = (mailer.clone(), RecordId::new(Some(&scope), &id), Fingerprint::of(&text));
    let effect = async move |context: OnceContext<()>| {
        Ok::<_, EffectError<io::Error>>(mailer.send(&text, &context.derived_key("mail")).await?)
    };
    Advice::of(&once.run(id, fingerprint, effect).await)
}

fn id_of<'a>(order: &'a BorrowedMessage<'_>) -> Option<&'a str> {
    let id = order.headers()?.iter().find(|header| header.key == ID)?;
    std::str::from_utf8(id.value?).ok()
}
