//! A message consumer without HTTP: `cargo run --example consumer`.
//!
//! A queue that gets no acknowledgement delivers again. The mail is sent only once, and the second delivery gets the
//! first one's outcome.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tower_idempotency::engine::{Advice, EffectError};
use tower_idempotency::{Fingerprint, Key, MemoryStore, Once, RecordId, Scope};

static MAILS: AtomicU64 = AtomicU64::new(0);

struct Message {
    id: &'static str,
    text: &'static str,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In production: SledStore::open("idempotency")?
    let once = Once::new(MemoryStore::new());
    // Another consumer of the same messages over the same store needs another name.
    let mailer = Scope::new("mailer")?;
    let message = Message { id: "message-17", text: "your order is on its way" };
    let other = Message { text: "another message", ..message };

    for delivery in [&message, &message, &other] {
        let id = RecordId::new(Some(&mailer), &Key::new(delivery.id)?);
        let send = |_| async {
            let number = MAILS.fetch_add(1, Ordering::SeqCst) + 1;
            Ok::<_, EffectError<std::io::Error>>(Bytes::from(format!("mail {number}")))
        };
        match once.run(id, Fingerprint::of(delivery.text.as_bytes()), send).await {
            Ok(outcome) => {
                println!("{}: {:?} (replayed: {})", delivery.id, outcome.bytes, outcome.replayed);
                // The message is acknowledged only now.
            }
            Err(error) => match error.advice() {
                Advice::Acknowledge => println!("{}: {error}; it is acknowledged", delivery.id),
                Advice::Redeliver => println!("{}: {error}; the queue delivers it again", delivery.id),
                // A producer has used one id for two messages. Nothing ran.
                Advice::HandOver => println!("{}: {error}; an operator looks at it", delivery.id),
            },
        }
    }
    assert_eq!(MAILS.load(Ordering::SeqCst), 1);
    Ok(())
}
