//! A connection that breaks at a byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fate::{End, Fate, Pass, Way};

/// A connection that is reset as soon as so many bytes of a direction were passed on, if they come.
#[derive(Debug)]
pub struct Cut {
    at: Option<(Way, usize)>,
    passed: AtomicUsize,
    made: Arc<AtomicUsize>,
}

impl Cut {
    /// `None`: it holds. `made` counts the cuts.
    pub fn new(at: Option<(Way, usize)>, made: &Arc<AtomicUsize>) -> Self {
        Self { at, passed: AtomicUsize::new(0), made: Arc::clone(made) }
    }
}

impl Fate for Cut {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        let Some((_, at)) = self.at.filter(|(broken, _)| *broken == way) else { return Pass::On };
        let left = at - self.passed.fetch_add(bytes.len(), Ordering::SeqCst).min(at);
        if left >= bytes.len() {
            return Pass::On;
        }
        self.made.fetch_add(1, Ordering::SeqCst);
        Pass::Cut(left, End::Rst)
    }
}
