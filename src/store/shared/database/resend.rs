//! Large writes that are sent again.
//!
//! A large write takes long on a slow link, and sending it again takes as long once more. Its answer may have been lost
//! for that very reason. So the store asks first what its row is now. It asks with a write that is never done, because
//! it expects a token that no row has: the answer has the row, without the bytes of a large one.
//!
//! - The row has the write's token. Each write has a token of its own, so a copy of this write made the row. That the
//!   row is *visible* does not make it durable: a server that was started again shows what its standby may not have. So
//!   the store then writes something else, a barrier. If the same server answers the barrier as durable, all that it
//!   had shown before is durable too, and the write is done. If another server answers, nothing is known, and the store
//!   asks again.
//! - The row is as the write expects. The write is sent again. If an earlier copy arrives meanwhile, it has the same
//!   token.
//! - The row is another one, or absent. The write can't be done any more, because tokens do not return, and the store
//!   answers that. A copy would be answered in the same way.

use std::sync::Arc;

use tokio::time::Instant;

use super::queue::{PendingWrite, WriteResult};
use super::writes::WriteSender;
use crate::key::RecordId;
use crate::store::shared::backend::{Answer, Backend, Expect, GRACE, Row, ServerId, Write};

/// Returns a write that is never done. Its answer is the row as it is now.
pub(crate) fn never_done(id: RecordId) -> Write {
    // The duration has no effect, because the write is never done.
    Write::released(id, Expect::Token(crate::store::shared::random_token()), GRACE)
}

/// Returns a write of a row that has no meaning and is deleted soon.
fn barrier(id: RecordId) -> Write {
    Write::released(id, Expect::Absent, GRACE)
}

impl<B: Backend> WriteSender<B> {
    /// Answers the writes that turn out to be done, or that can't be done any more. Returns the others, which are to be
    /// sent.
    pub(crate) async fn without_done(self: &Arc<Self>, batch: Vec<PendingWrite>) -> Vec<PendingWrite> {
        let (asked, mut sent): (Vec<PendingWrite>, Vec<PendingWrite>) =
            batch.into_iter().partition(|put| put.may_be_done && put.is_large());
        if asked.is_empty() {
            return sent;
        }
        let began = Instant::now();
        let asks: Vec<Write> = asked.iter().map(|put| never_done(put.write.id)).collect();
        let clocks = self.state.clocks.now();
        let Ok(Answer { now, server, rows }) = self.call(clocks, &asks, began).await else {
            // Nothing is known yet: `enqueue_later` queues each write after a pause.
            asked.into_iter().for_each(|put| self.enqueue_later(put));
            return sent;
        };
        let (mut done, mut others) = (Vec::new(), Vec::new());
        for (put, row) in asked.into_iter().zip(rows) {
            if put.is_done(row.as_ref()) {
                done.push((put, row));
            } else if put.is_expected(row.as_ref()) {
                sent.push(put);
            } else {
                others.push((put, row));
            }
        }
        if !done.is_empty() && self.is_behind_barrier(server).await {
            for (put, row) in &mut done {
                if let Some(row) = row {
                    row.state = put.write.state.clone();
                }
            }
            others.append(&mut done);
        }
        // Here `done` has only writes for which there was no barrier. Their rows may be lost, so they are asked about
        // again.
        done.into_iter().for_each(|(put, _)| self.enqueue_later(put));
        // These are done for certain, or can't be done any more: their callers get the present row.
        for (put, row) in others {
            let (earliest, sent) = (clocks.at(now).earliest, put.sent.unwrap_or(began));
            let _ = put.reply.send(Ok(WriteResult { row, server, earliest, sent }));
        }
        sent
    }

    /// Writes a barrier, and returns whether `server` has answered it as durable.
    async fn is_behind_barrier(&self, server: ServerId) -> bool {
        let barrier = [barrier(crate::store::shared::random_id())];
        let Ok(answer) = self.call(self.state.clocks.now(), &barrier, Instant::now()).await else { return false };
        let is_written = |row: &Option<Row>| row.as_ref().is_some_and(|row| row.token == barrier[0].token);
        answer.server == server && answer.rows.iter().all(is_written)
    }
}
