//! The writer's thread, which takes the queued commands, decides them, makes the results durable, and answers: a claim
//! and an end come through here alike. `Close` ends it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batches::batch::Batch;
use super::batches::sweep::{Slice, sweep};
use super::command::{Asked, Command};
use super::group_commit::{CommitDelay, Load};
use super::layout::storage_engine::StorageEngine;
use super::queue::{Closed, Receiver};
use super::state::{PANICKED, StoreState};
use crate::slots::once_a_minute;

/// The least that is swept along with a batch of requests. It is little, so that requests are not held up. If the batch
/// lists more records as expiring, that many are swept, so that sweeping keeps up with writing.
const SWEPT_ALONG: Slice = Slice { records: 16, chunks: 16 };
/// The number of chunks that are swept for each chunk that the batch writes. Sweeping a chunk is quick.
const CHUNKS_PER_WRITTEN: usize = 2;
/// The part that is swept in a batch of its own while no command waits. A command that comes then waits for its end.
pub(super) const SWEPT_IDLE: Slice = Slice { records: 128, chunks: 64 };
/// The interval at which the thread looks for expired records.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The interval at which the thread looks at the free space of the disk while it has nothing to write.
const LOOK_EVERY: Duration = Duration::from_millis(125);

/// Runs until the store is closed or the last handle is gone.
pub(super) fn run<E: StorageEngine>(shared: &Arc<StoreState<E>>, mut commands: Receiver<Command<E>>) {
    // The store was closed before this thread began.
    let Some(engine) = shared.engine() else { return shared.checkpointer.end() };
    let mut writer =
        Writer { shared, backlog: false, asked: VecDeque::new(), swept: Instant::now(), delay: CommitDelay::default() };
    let closed = loop {
        let wait = if writer.backlog || !writer.asked.is_empty() { Duration::ZERO } else { LOOK_EVERY };
        // After a timeout a batch without commands follows, which looks at the disk and may sweep.
        if commands.wait(1, wait) == Err(Closed) {
            break None;
        }
        *shared.batch.lock() = Some(Instant::now());
        let close = writer.batch(&engine, &mut commands);
        *shared.batch.lock() = None;
        if close.is_some() {
            break close;
        }
    };
    writer.end_sweeps();
    shared.checkpointer.end();
    // The engine is released first, so that the caller who waits for the answer finds it gone.
    shared.release_engine(engine);
    if let Some(reply) = closed {
        // The caller of `close` may have gone.
        let _ = reply.send(());
    }
}

struct Writer<'a, E: StorageEngine> {
    shared: &'a StoreState<E>,
    /// `true` if the last sweep found more expired records than it could delete.
    backlog: bool,
    /// The sweeps that callers asked for, and when the last sweep began that no caller asked for.
    asked: VecDeque<Asked>,
    swept: Instant,
    /// Decides whether the next batch waits a moment for more commands.
    delay: CommitDelay,
}

impl<E: StorageEngine> Writer<'_, E> {
    /// Makes one batch of the queued commands. Returns the sender of a `Close` command, if there was one.
    fn batch(&mut self, engine: &E, queue: &mut Receiver<Command<E>>) -> Option<oneshot::Sender<()>> {
        let mut load = Load::default();
        if self.shared.is_poisoned() {
            // The senders notice that their replies are dropped.
            self.backlog = false;
            self.asked.clear();
            while load.take(queue).is_some() {}
            return load.close;
        }
        self.shared.space.look(&self.shared.path, self.shared.limits);
        let mut batch = Batch::new(self.shared, engine);
        // An engine may panic on some internal failures.
        match catch_unwind(AssertUnwindSafe(|| self.decide(&mut batch, queue, &mut load))) {
            // A failure poisons the store, and all senders get its error.
            Ok(()) => drop(batch.commit()),
            // The store is poisoned before the batch is dropped with the answers that it had decided, so a sender that
            // misses its answer finds the store poisoned. Only the answer of the command under way was dropped by the
            // panic, a moment before.
            Err(_) => self.shared.poison(PANICKED.to_owned()),
        }
        load.close
    }

    /// Answers the unfinished sweeps when the store is closed: what was swept so far is durable.
    fn end_sweeps(&mut self) {
        let is_known = !self.shared.is_poisoned();
        for Asked { swept, reply, .. } in self.asked.drain(..).filter(|_| is_known) {
            let _ = reply.send(Ok(swept));
        }
    }

    /// Decides the commands that are there, and those that come a moment later.
    fn decide(&mut self, batch: &mut Batch<'_, E>, queue: &mut Receiver<Command<E>>, load: &mut Load) {
        decide_all(batch, queue, load);
        load.gather(queue, self.shared.slots.live(), &mut self.delay);
        decide_all(batch, queue, load);
        self.asked.extend(batch.sweeps.drain(..));
        if let Some(asked) = self.asked.pop_front() {
            if let Some(unfinished) = sweep_asked(batch, asked) {
                self.asked.push_front(unfinished);
            }
        } else if self.backlog || self.swept.elapsed() >= SWEEP_EVERY {
            self.swept = Instant::now();
            let slice = if load.is_empty() { SWEPT_IDLE } else { along_with(batch) };
            self.backlog = match sweep(batch, slice) {
                Ok(swept) => swept.more,
                // There is no caller to answer. The next look tries again, unless a failed read has poisoned the store.
                Err(error) => {
                    let lines = &self.shared.slots.telemetry.lines;
                    once_a_minute!(lines.of("unswept"), error, %error, "expired records were not deleted; the store tries again");
                    false
                }
            };
        }
    }
}

/// Decides the commands that are there.
fn decide_all<E: StorageEngine>(batch: &mut Batch<'_, E>, queue: &mut Receiver<Command<E>>, load: &mut Load) {
    batch.reserve(load.room_for(queue));
    while let Some(command) = load.take(queue) {
        decide(batch, command);
        batch.write_if_full();
    }
}

/// Returns how much is swept along with what a batch writes.
pub(super) fn along_with<E: StorageEngine>(batch: &Batch<'_, E>) -> Slice {
    Slice {
        records: SWEPT_ALONG.records.max(batch.listed),
        chunks: SWEPT_ALONG.chunks.max(CHUNKS_PER_WRITTEN * batch.chunks),
    }
}

/// Decides one command.
pub(super) fn decide<E: StorageEngine>(batch: &mut Batch<'_, E>, command: Command<E>) {
    match command {
        Command::Apply(submitted) => batch.apply(submitted),
        Command::Transact(transact) => batch.transact(*transact),
        Command::Sweep(asked) => batch.sweeps.push(asked),
        Command::Sync(reply) => batch.sync(reply),
        // `Load` keeps this command for itself.
        Command::Close(_) => {}
    }
}

/// Sweeps a slice of a sweep that was asked for, and returns the sweep if it is not finished. This comes after all
/// other commands of the batch: one of them may write a swept record again, under the same keys, and a batch's removals
/// are written last.
pub(super) fn sweep_asked<E: StorageEngine>(batch: &mut Batch<'_, E>, asked: Asked) -> Option<Asked> {
    let Asked { limit, swept, reply } = asked;
    let records = (limit - swept).min(SWEPT_IDLE.records);
    match sweep(batch, Slice { records, ..SWEPT_IDLE }) {
        // No more has expired, or the limit is reached.
        Ok(slice) if slice.seen < records || swept + slice.records == limit => {
            batch.answer(reply, move |_| Ok(swept + slice.records));
        }
        Ok(slice) => return Some(Asked { limit, swept: swept + slice.records, reply }),
        Err(error) => drop(reply.send(Err(error))),
    }
    None
}
