//! The health of the store, in words.

use tower_idempotency::store::Health;

use crate::text::{shown, span};

/// Returns whether all is well, and the state in words.
pub(crate) fn health(health: &Health) -> (bool, String) {
    match health {
        Health::Good => (true, "works".to_owned()),
        Health::Slow { since } => (false, format!("is slow: a write has been under way for {}", span(*since))),
        Health::Full { limit } => (false, format!("is full and takes no new keys: {limit} is reached")),
        Health::Away { since, reason } => {
            (false, format!("can't be reached since {}: {}", span(*since), shown(reason)))
        }
        Health::Poisoned { reason } => (false, format!("is poisoned, restart the process: {}", shown(reason))),
        Health::Closed => (false, "is closed".to_owned()),
        _ => (false, "is not well".to_owned()),
    }
}

#[cfg(test)]
mod tests;
