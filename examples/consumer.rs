//! A message consumer without HTTP: `cargo run -p examples --example consumer`.
//!
//! A queue that gets no acknowledgement delivers again. Each mail is sent once, over a restart too, and a later
//! delivery gets the outcome of the first one.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::VecDeque;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tower_idempotency::engine::{Advice, EffectError};
use tower_idempotency::{Fingerprint, Key, Once, RecordId, Scope, SledStore};

#[derive(Clone, Copy)]
struct Message {
    id: &'static str,
    text: &'static str,
}

/// What the effect produces. Any type of serde will do.
#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    mail: u64,
}

/// The mail server, which sends what it gets as often as it gets it.
static MAILS: AtomicU64 = AtomicU64::new(0);

async fn send(_text: &str) -> Result<Sent, EffectError<std::io::Error>> {
    // `EffectError::NotStarted` says that no mail was sent; `?` makes an error into "maybe".
    Ok(Sent { mail: MAILS.fetch_add(1, Ordering::SeqCst) + 1 })
}

/// Consumes until the queue is empty. Returns how many messages are for an operator.
async fn consume(once: &Once<SledStore, Sent>, mut queue: VecDeque<Message>) -> Result<usize, Box<dyn Error>> {
    // Another consumer of the same messages over the same store needs another name. An id that is no key (1 to 255
    // characters of printable ASCII) is for an operator, too; here there is none.
    let (mailer, mut set_aside) = (Scope::new("mailer")?, 0);
    while let Some(message) = queue.pop_front() {
        let id = RecordId::new(Some(&mailer), &Key::new(message.id)?);
        let effect = async move |_| send(message.text).await;
        let result = once.run(id, Fingerprint::of(message.text.as_bytes()), effect).await;
        // The message is acknowledged here, and not before: what is not acknowledged comes again.
        match Advice::of(&result) {
            Advice::Acknowledge => {}
            Advice::Redeliver => queue.push_back(message), // a broker delivers it after a pause
            Advice::HandOver => set_aside += 1,
        }
        match result {
            Ok(outcome) => println!("{}: {:?}, replayed: {}", message.id, outcome.value, outcome.replayed),
            Err(error) => println!("{}: {error}", message.id),
        }
    }
    Ok(set_aside)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // In a service of your own: SledStore::open("idempotency")?
    let directory = tempfile::tempdir()?;
    let message = Message { id: "message-17", text: "your order is on its way" };
    // A producer has used one id for two messages.
    let other = Message { text: "your order is late", ..message };

    let store = SledStore::open(directory.path())?;
    let once = Once::new(store.clone());
    assert_eq!(consume(&once, [message, message, other].into()).await?, 1);
    drop(once);
    store.close().await?;

    // The program is started again, and its last acknowledgement was lost.
    let store = SledStore::open(directory.path())?;
    assert_eq!(consume(&Once::new(store.clone()), [message].into()).await?, 0);
    assert_eq!(MAILS.load(Ordering::SeqCst), 1);
    Ok(store.close().await?)
}
