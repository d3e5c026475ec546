use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A mail server, which sends what it gets as often as it gets it. It counts the mails of each text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mailer {
    sent: Arc<Mutex<BTreeMap<Vec<u8>, u64>>>,
}

impl Mailer {
    /// Sends a mail, and returns its number.
    pub(crate) fn send(&self, text: &[u8]) -> u64 {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent.entry(text.to_vec()).or_default() += 1;
        sent.values().sum()
    }

    /// How often the mail of each text was sent.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }
}
