//! The consumer: what a service over `RabbitMQ` looks like with this crate.

use std::convert::Infallible;

use futures_util::StreamExt as _;
use lapin::Connection;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use tower_idempotency::engine::{Advice, EffectError};
use tower_idempotency::{Fingerprint, Key, Once, RecordId, Scope, SledStore};

use crate::mailer::Mailer;

/// Consumes orders until the connection ends, and acknowledges each as `handle` says, when it has returned. One that is
/// rejected goes to the queue's dead letters, if it has any.
pub(crate) async fn consume(
    connection: &Connection,
    queue: &str,
    mut handle: impl AsyncFnMut(&Delivery) -> Advice,
) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let (consumer, options) = ("mailer".into(), BasicConsumeOptions::default());
    let mut orders = channel.basic_consume(queue.into(), consumer, options, FieldTable::default()).await?;
    while let Some(order) = orders.next().await.transpose()? {
        match handle(&order).await {
            Advice::Acknowledge => order.ack(BasicAckOptions::default()).await?,
            Advice::Redeliver => order.nack(BasicNackOptions { requeue: true, ..Default::default() }).await?,
            Advice::HandOver => order.reject(BasicRejectOptions { requeue: false }).await?,
        };
    }
    Ok(())
}

/// Sends the mail of an order once, however often the order is delivered.
pub(crate) async fn once(once: &Once<SledStore, u64>, mailer: &Mailer, order: &Delivery) -> Advice {
    // The producer's id: the same when it sends again, and whenever the broker delivers again.
    let Some(id) = id_of(order).and_then(|id| Key::new(id).ok()) else { return Advice::HandOver };
    let Ok(scope) = Scope::new("mailer") else { return Advice::HandOver };
    let (mailer, text) = (mailer.clone(), order.data.clone());
    let effect = async move |_| Ok::<_, EffectError<Infallible>>(mailer.send(&text));
    Advice::of(&once.run(RecordId::new(Some(&scope), &id), Fingerprint::of(&order.data), effect).await)
}

/// Sends the mail of an order each time that it is delivered.
pub(crate) fn naive(mailer: &Mailer, order: &Delivery) -> Advice {
    mailer.send(&order.data);
    Advice::Acknowledge
}

fn id_of(order: &Delivery) -> Option<&str> {
    order.properties.message_id().as_ref().map(|id| id.as_str())
}
