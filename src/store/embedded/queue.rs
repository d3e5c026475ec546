//! The queue between the handles and the writer: each claim and each end goes through it, and at last `Close`.
//!
//! The receiver says how many items it waits for, and is woken once, when that many are there. (The standard library's
//! channel wakes its receiver for each item; on two cores, waking took longer than the wait was meant to be.)

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Puts items in. When it is dropped, the queue is closed.
pub(super) struct Sender<T>(Arc<Queue<T>>);

/// Takes items out. When it is dropped, the queue is closed, and the items in it are dropped.
pub(super) struct Receiver<T> {
    queue: Arc<Queue<T>>,
    /// Items that were taken out of the shared state but not returned by `take` yet.
    taken: VecDeque<T>,
}

/// The other end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

struct Queue<T> {
    state: Mutex<Items<T>>,
    /// Signals that `wanted` items are there, or that the queue is closed.
    enough: Condvar,
    /// The number of items that were put in and not taken out yet.
    waiting: AtomicUsize,
}

struct Items<T> {
    items: VecDeque<T>,
    /// The number of items that the receiver waits for; 0 if it does not wait.
    wanted: usize,
    is_closed: bool,
}

/// Creates a queue without bounds.
pub(super) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let state = Items { items: VecDeque::new(), wanted: 0, is_closed: false };
    let queue = Arc::new(Queue { state: Mutex::new(state), enough: Condvar::new(), waiting: AtomicUsize::new(0) });
    (Sender(Arc::clone(&queue)), Receiver { queue, taken: VecDeque::new() })
}

impl<T> Queue<T> {
    /// Closes the queue, wakes the receiver, and returns the lock, under which a caller may take the items out.
    fn close(&self) -> MutexGuard<'_, Items<T>> {
        let mut state = self.state.lock();
        state.is_closed = true;
        self.enough.notify_all();
        state
    }
}

impl<T> Sender<T> {
    /// Puts `item` in, or returns it if the queue is closed and has no receiver any more.
    pub(super) fn send(&self, item: T) -> Result<(), T> {
        let mut state = self.0.state.lock();
        if state.is_closed {
            return Err(item);
        }
        state.items.push_back(item);
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let is_enough = state.wanted > 0 && state.items.len() >= state.wanted;
        if is_enough {
            // Later items do not wake the receiver again for this wait.
            state.wanted = 0;
        }
        drop(state);
        if is_enough {
            self.0.enough.notify_one();
        }
        Ok(())
    }

    /// Returns how many items were put in and not taken out yet.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // Items that were sent before are still taken.
        drop(self.0.close());
    }
}

impl<T> Receiver<T> {
    /// Waits until `wanted` items can be taken, or until `timeout`. Returns how many there are.
    pub(super) fn wait(&self, wanted: usize, timeout: Duration) -> Result<usize, Closed> {
        let there = |state: &Items<T>| self.taken.len() + state.items.len();
        let mut state = self.queue.state.lock();
        if there(&state) < wanted && !state.is_closed && !timeout.is_zero() {
            // Senders count only the items in the shared state.
            state.wanted = wanted - self.taken.len();
            let waits = |state: &mut Items<T>| state.wanted > 0 && !state.is_closed;
            self.queue.enough.wait_while_for(&mut state, waits, timeout);
            // After a timeout the number is still there, and the next item is not to wake anything.
            state.wanted = 0;
        }
        match there(&state) {
            0 if state.is_closed => Err(Closed),
            there => Ok(there),
        }
    }

    /// Takes the first item.
    pub(super) fn take(&mut self) -> Option<T> {
        if self.taken.is_empty() {
            // All items are taken out under one lock.
            std::mem::swap(&mut self.taken, &mut self.queue.state.lock().items);
        }
        let taken = self.taken.pop_front()?;
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(taken)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let items = std::mem::take(&mut self.queue.close().items);
        // The items are dropped outside the lock, because dropping one may send.
        drop(items);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn all_that_is_sent_is_taken_in_order_and_then_it_is_closed() {
        let (sender, mut receiver) = queue();
        assert_eq!(receiver.wait(1, Duration::ZERO), Ok(0));
        let sending = thread::spawn(move || (0..1_000).for_each(|number| sender.send(number).unwrap()));
        let mut taken = Vec::new();
        while receiver.wait(7, LONG).is_ok() {
            taken.extend(receiver.take());
        }
        sending.join().unwrap();
        assert_eq!(taken, (0..1_000).collect::<Vec<_>>());
        assert_eq!(receiver.take(), None);
    }

    #[test]
    fn a_receiver_is_woken_when_enough_items_are_there_and_not_before() {
        let (sender, mut receiver) = queue();
        sender.send(0).unwrap();
        let taking = thread::spawn(move || (receiver.wait(3, LONG), receiver.wait(1, LONG), receiver.take(), receiver));
        while sender.0.state.lock().wanted != 3 {
            thread::yield_now();
        }
        sender.send(1).unwrap();
        assert_eq!(sender.0.state.lock().wanted, 3, "it waits on");
        sender.send(2).unwrap();
        let (enough, at_once, first, _receiver) = taking.join().unwrap();
        assert_eq!((enough, at_once, first), (Ok(3), Ok(3), Some(0)));
    }

    #[test]
    fn a_wait_ends_with_its_time_and_when_the_other_end_goes() {
        let (sender, receiver) = queue::<u8>();
        assert_eq!(receiver.wait(1, Duration::from_millis(1)), Ok(0));
        let waiting = thread::spawn(move || receiver.wait(1, LONG));
        drop(sender);
        assert_eq!(waiting.join().unwrap(), Err(Closed));
    }

    #[test]
    fn those_wait_that_were_put_in_and_not_taken_out() {
        let (sender, mut receiver) = queue();
        (0..3).for_each(|number| sender.send(number).unwrap());
        assert_eq!((receiver.take(), sender.waiting()), (Some(0), 2));
        sender.send(3).unwrap();
        let left = std::iter::from_fn(|| receiver.take()).count();
        assert_eq!((left, sender.waiting()), (3, 0));
    }

    #[test]
    fn an_item_without_a_receiver_is_given_back_or_dropped() {
        let (sender, mut receiver) = queue();
        let item = Arc::new(());
        for _ in 0..3 {
            sender.send(Arc::clone(&item)).unwrap();
        }
        drop(receiver.take());
        drop(receiver);
        assert_eq!(Arc::strong_count(&item), 1);
        assert!(sender.send(Arc::clone(&item)).is_err());
    }
}
