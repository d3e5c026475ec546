//! A run: orders are published, and the acknowledgement of each is lost once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use testkit::proxy::{End, Fate, Pass, Proxy, Way};
use tokio::sync::Notify;
use tokio::time::timeout;
use tower_idempotency::engine::Advice;
use tower_idempotency::{Once, SledStore};

use crate::broker::Broker;
use crate::consumer::{ORDERS, consume, naive, once};
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

/// Publishes `orders`, and consumes them with this crate or without it. Every second acknowledgement is lost, together
/// with its connection: the mail is sent by then, and the broker delivers the order again.
///
/// # Errors
/// The broker or the store fails, or the run takes longer than five minutes.
pub async fn run(broker: &Broker, orders: u64, with_crate: bool) -> Result<Sum, Failure> {
    let to = SocketAddr::from(([127, 0, 0, 1], broker.port()));
    publish(&url(to), orders).await?;
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
            let handle = async |order: &Delivery| -> Advice {
                deliveries += 1;
                redelivered += u64::from(order.redelivered);
                if with_crate { once(&consumer, &mailer, order).await } else { naive(&mailer, order) }
            };
            // An error: the connection was cut.
            let _ = consume(&url, handle).await;
        }
    };
    tokio::select! {
        () = consuming => {}
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

/// Puts orders into the queue, which is empty before. Each has an id, which the consumer's record is kept under.
async fn publish(url: &str, orders: u64) -> Result<(), Failure> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare(ORDERS.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    channel.queue_purge(ORDERS.into(), QueuePurgeOptions::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for number in 0..orders {
        let id = BasicProperties::default().with_message_id(format!("order-{number}:confirmation").into());
        let text = format!("order {number} is on its way");
        let options = BasicPublishOptions::default();
        let confirmed = channel.basic_publish("".into(), ORDERS.into(), options, text.as_bytes(), id).await?.await?;
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
    sent: AtomicU64,
    done: Notify,
}

/// A connection that loses every second acknowledgement, and ends with it.
struct Loses(Arc<Acknowledgements>);

impl Fate for Loses {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        if way == Way::Response || !bytes.windows(ACKNOWLEDGE.len()).any(|window| window == ACKNOWLEDGE) {
            return Pass::On;
        }
        let Acknowledgements { orders, sent, done } = &*self.0;
        match sent.fetch_add(1, Ordering::SeqCst) + 1 {
            odd if odd % 2 == 1 => Pass::Cut(0, End::Rst),
            even => {
                // The last one that passes.
                if even == 2 * orders {
                    done.notify_one();
                }
                Pass::On
            }
        }
    }
}
