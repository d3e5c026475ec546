//! A run: orders are published, and the acknowledgement of each is lost once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use testkit::proxy::{End, Fate, Pass, Proxy, Way};
use tokio::sync::Notify;
use tokio::time::timeout;
use tower_idempotency::engine::Advice;
use tower_idempotency::{Once, SledStore};

use crate::broker::Broker;
use crate::consumer::{consume, naive, once};
use crate::mailer::Mailer;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The class and method of an acknowledgement (AMQP 0-9-1, basic.ack).
const ACKNOWLEDGE: [u8; 4] = [0, 60, 0, 80];
const GIVE_UP: Duration = Duration::from_secs(300);

/// What came of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Deliveries of orders.
    pub deliveries: u64,
    /// Those that the broker has marked as redelivered.
    pub redelivered: u64,
    /// Mails that were sent.
    pub mails: u64,
    /// Orders whose mail was sent more than once.
    pub twice: u64,
    /// Orders whose mail was not sent.
    pub lost: u64,
}

/// Publishes `orders`, and consumes them with this crate or without it. The first acknowledgement of each is lost,
/// together with its connection: the mail is sent by then, and the broker delivers the order again.
///
/// # Errors
/// The broker or the store fails, or the run takes longer than five minutes.
pub async fn run(broker: &Broker, orders: u64, with_crate: bool) -> Result<Sum, Failure> {
    let to = broker.address();
    let queue = if with_crate { "orders.with" } else { "orders.without" };
    publish(&url(to), queue, orders).await?;
    let acknowledgements = Arc::new(Acknowledgements { orders, ..Acknowledgements::default() });
    let loses = Arc::clone(&acknowledgements);
    let proxy = Proxy::to(to, move |_| Some(Loses(Arc::clone(&loses)))).await;
    let directory = tempfile::tempdir()?;
    let store = SledStore::open(directory.path())?;
    let (consumer, mailer) = (Once::new(store.clone()), Mailer::default());
    let (mut deliveries, mut redelivered) = (0, 0);
    let url = url(proxy.address());
    let consuming = async {
        loop {
            let connection = match Connection::connect(&url, ConnectionProperties::default()).await {
                Ok(connection) => connection,
                // The broker itself is away.
                Err(error) => break error,
            };
            let handle = async |order: &Delivery| -> Advice {
                deliveries += 1;
                redelivered += u64::from(order.redelivered);
                // One order is under way at a time, so the next acknowledgement is this one's.
                acknowledgements.is_first.store(!order.redelivered, Ordering::SeqCst);
                if with_crate { once(&consumer, &mailer, order).await } else { naive(&mailer, order) }
            };
            // An error: the connection was cut.
            let _ = consume(&connection, queue, handle).await;
        }
    };
    tokio::select! {
        error = consuming => return Err(error.into()),
        done = timeout(GIVE_UP, acknowledgements.done.notified()) => done?,
    }
    store.close().await?;
    let counts = mailer.counts();
    Ok(Sum {
        deliveries,
        redelivered,
        mails: counts.iter().sum(),
        twice: counts.iter().filter(|&&count| count > 1).count() as u64,
        lost: orders.saturating_sub(counts.len() as u64),
    })
}

/// Puts orders into a new queue. Each has an id, which the consumer's record is kept under.
async fn publish(url: &str, queue: &str, orders: u64) -> Result<(), Failure> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for number in 0..orders {
        let id = BasicProperties::default().with_message_id(format!("order-{number}:confirmation").into());
        let text = format!("order {number} is on its way");
        let options = BasicPublishOptions::default();
        let confirmed = channel.basic_publish("".into(), queue.into(), options, text.as_bytes(), id).await?.await?;
        if !confirmed.is_ack() {
            return Err(io::Error::other("the broker has not taken an order").into());
        }
    }
    Ok(())
}

fn url(at: SocketAddr) -> String {
    format!("amqp://guest:guest@{at}/%2f")
}

#[derive(Debug, Default)]
struct Acknowledgements {
    orders: u64,
    /// Whether the order that is under way was not delivered before.
    is_first: AtomicBool,
    passed: AtomicU64,
    done: Notify,
}

/// A connection that loses the first acknowledgement of an order, and ends with it.
struct Loses(Arc<Acknowledgements>);

impl Fate for Loses {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        if way == Way::Response || !bytes.windows(ACKNOWLEDGE.len()).any(|window| window == ACKNOWLEDGE) {
            return Pass::On;
        }
        let Acknowledgements { orders, is_first, passed, done } = &*self.0;
        if is_first.load(Ordering::SeqCst) {
            return Pass::Cut(0, End::Rst);
        }
        if passed.fetch_add(1, Ordering::SeqCst) + 1 == *orders {
            done.notify_one();
        }
        Pass::On
    }
}
