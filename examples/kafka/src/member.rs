//! The process of the consumers, which is killed.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::time::sleep;
use tower_idempotency::SledStore;
use tower_idempotency::engine::Advice;

use crate::Failure;
use crate::consumer::{consume, once, send_once};
use crate::mailer::Mailer;
use crate::notes::Notes;

const STORE: &str = "store";
/// After how many deliveries to this process its last consumer joins the group: the others are at work then.
const JOINS_AFTER: usize = 300;
const LOOK: Duration = Duration::from_millis(20);

/// Three consumers of one process, until it is killed.
pub(crate) async fn run(broker: &str, directory: &Path, with_crate: bool, commit_every: usize) -> Result<(), Failure> {
    std::thread::spawn(|| {
        // The parent holds the other end for as long as it lives.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let (mailer, notes) = (Mailer::of(directory), Notes::of(directory));
    let consumer = match with_crate {
        true => Some(once(SledStore::open_within(directory.join(STORE), Duration::from_secs(10))?, &mailer)),
        false => None,
    };
    let before = notes.deliveries();
    let member = async |joins_after: usize| {
        while notes.deliveries() < before + joins_after {
            sleep(LOOK).await;
        }
        let handle = async |order: &BorrowedMessage<'_>| {
            if let Some(consumer) = &consumer {
                return send_once(consumer, &mailer, order).await;
            }
            let sent = mailer.send(order.payload().unwrap_or_default(), "-").await;
            if sent.is_ok() { Advice::Acknowledge } else { Advice::Redeliver }
        };
        consume(broker, commit_every, &notes, handle).await
    };
    tokio::try_join!(member(0), member(0), member(JOINS_AFTER))?;
    Ok(())
}
