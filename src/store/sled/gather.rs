//! What is written together: all that is queued, and what is about to be.
//!
//! A batch costs a sync, however little is in it. While other runs are under way, their verbs often come a moment after the
//! first; a batch that waits that moment for them holds many more, and all are answered sooner. Whether it is worth it is
//! learned: a wait for nothing is followed by batches that don't wait, twice as many each time.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batch::MAX_STEP;
use super::verb::Verb;

/// The most verbs in one batch.
const MAX_VERBS: usize = 512;
/// The bytes of outcomes from which on a batch takes no more verbs.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// For how long the next verb is waited for, and from when on a batch waits no more. Timers are coarse: a wait for nothing
/// takes some 70 µs, less than a sync on most disks.
const GRACE: Duration = Duration::from_micros(20);
const MOST_GRACE: Duration = Duration::from_micros(200);
/// How many batches at most don't wait, before it is tried again.
const MOST_SKIPPED: u32 = 64;

/// Whether it is worth waiting for more.
#[derive(Debug, Default)]
pub(super) struct Patience {
    // How many batches go without, from now on, and the next time.
    skips: u32,
    next_skips: u32,
}

impl Patience {
    /// Whether the batch that begins now may wait.
    fn may_wait(&mut self) -> bool {
        let may_wait = self.skips == 0;
        self.skips = self.skips.saturating_sub(1);
        may_wait
    }

    /// What came of having waited.
    fn has_waited(&mut self, for_something: bool) {
        if for_something {
            *self = Self::default();
        } else {
            self.next_skips = (self.next_skips * 2).clamp(1, MOST_SKIPPED);
            self.skips = self.next_skips;
        }
    }
}

/// The verbs of one batch, of which `first` is there; `live` runs are under way, and may send more.
pub(super) fn gather(
    first: Option<Verb>,
    queue: &Receiver<Verb>,
    live: usize,
    patience: &mut Patience,
) -> (Vec<Verb>, Option<oneshot::Sender<()>>) {
    let mut verbs = Vec::new();
    let (mut bytes, mut step) = (0, 0);
    let mut next = first;
    let may_wait = live > 1 && next.is_some() && patience.may_wait();
    // Since when it waits, and how many there were then.
    let mut waiting = None;
    while let Some(verb) = next {
        match verb {
            Verb::Close(reply) => return (verbs, Some(reply)),
            verb => {
                bytes += verb.bytes();
                step += verb.step();
                verbs.push(verb);
            }
        }
        if verbs.len() >= MAX_VERBS || bytes >= MAX_BYTES || step >= MAX_STEP {
            break;
        }
        next = queue.try_recv().ok();
        if next.is_none() && may_wait && verbs.len() < live {
            let (began, _) = *waiting.get_or_insert_with(|| (Instant::now(), verbs.len()));
            if began.elapsed() < MOST_GRACE {
                next = queue.recv_timeout(GRACE).ok();
            }
        }
    }
    if let Some((_, before)) = waiting {
        patience.has_waited(verbs.len() > before);
    }
    (verbs, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_for_nothing_waits_ever_more_seldom_until_it_was_worth_it() {
        let mut patience = Patience::default();
        let mut skipped = Vec::new();
        for _ in 0..9 {
            let skips = std::iter::repeat_with(|| patience.may_wait()).take_while(|may_wait| !may_wait).count();
            skipped.push(skips);
            patience.has_waited(false);
        }
        assert_eq!(skipped, [0, 1, 2, 4, 8, 16, 32, 64, 64]);
        patience.has_waited(true);
        assert!(patience.may_wait() && patience.may_wait());
    }
}
