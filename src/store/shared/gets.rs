//! The reads of this process, on their way to the database.
//!
//! Rules:
//! 1. A read belongs to the store's own tasks, in the store's runtime, whoever asked for it.
//! 2. Reads that come while the database is at work go together, and a row that several ask for is read once.
//! 3. A read is not sent again. Nothing is sent for somebody who has gone.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::backend::{Answer, Backend, BackendError, Row, ServerId};
use super::errors::away;
use super::reach::Reach;
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::store::StoreError;

/// The most rows in one call, and the most calls at a time.
const TOGETHER: usize = 64;
const AT_ONCE: usize = 2;

/// What is known of a row.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) row: Option<Row>,
    /// The earliest time by which it was judged.
    pub(super) earliest: Timestamp,
    /// The server that has shown it; `None` if this process wrote it.
    pub(super) server: Option<ServerId>,
}

type Reply = oneshot::Sender<Result<Known, Arc<BackendError>>>;

#[derive(Debug)]
struct Get {
    id: RecordId,
    reply: Reply,
}

/// The way for reads to the database.
#[derive(Debug)]
pub(super) struct Gets(mpsc::UnboundedSender<Get>);

impl Gets {
    /// Starts the tasks that read.
    pub(super) fn start<B: Backend>(backend: Arc<B>, reach: Arc<Reach>, runtime: &Handle) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        runtime.spawn(run(backend, reach, queued));
        Self(queue)
    }

    /// Reads the row of `id`.
    pub(super) async fn get(&self, id: RecordId) -> Result<Known, StoreError> {
        let (reply, known) = oneshot::channel();
        let gone = || StoreError::unavailable("the store's runtime is gone");
        self.0.send(Get { id, reply }).map_err(|_| gone())?;
        known.await.map_err(|_| gone())?.map_err(away)
    }
}

async fn run<B: Backend>(backend: Arc<B>, reach: Arc<Reach>, mut queued: mpsc::UnboundedReceiver<Get>) {
    let calls = Arc::new(Semaphore::new(AT_ONCE));
    let mut gets = Vec::new();
    while queued.recv_many(&mut gets, TOGETHER).await > 0 {
        let Ok(call) = Arc::clone(&calls).acquire_owned().await else { return };
        // Those who were woken together ask together.
        tokio::task::yield_now().await;
        while gets.len() < TOGETHER
            && let Ok(get) = queued.try_recv()
        {
            gets.push(get);
        }
        let (backend, reach, gets) = (Arc::clone(&backend), Arc::clone(&reach), std::mem::take(&mut gets));
        tokio::spawn(async move {
            read(&*backend, &reach, gets).await;
            drop(call);
        });
    }
}

async fn read<B: Backend>(backend: &B, reach: &Reach, gets: Vec<Get>) {
    let mut asked: HashMap<RecordId, Vec<Reply>> = HashMap::new();
    for Get { id, reply } in gets {
        if !reply.is_closed() {
            asked.entry(id).or_default().push(reply);
        }
    }
    let ids: Vec<_> = asked.keys().copied().collect();
    if ids.is_empty() {
        return;
    }
    let (clocks, sent) = (reach.clocks.now(), Instant::now());
    let answer = match reach.call(|| backend.get(clocks, &ids)).await {
        Ok(answer) if answer.rows.len() != ids.len() => {
            Err(BackendError::Uncertain("it does not have a row for each id".into()))
        }
        answer => answer,
    };
    match answer {
        Ok(Answer { now, server, rows }) => {
            reach.answered(server, now, sent, false, rows.iter().flatten());
            let earliest = clocks.at(now).earliest;
            for (id, row) in ids.into_iter().zip(rows) {
                for reply in asked.remove(&id).unwrap_or_default() {
                    let _ = reply.send(Ok(Known { row: row.clone(), earliest, server: Some(server) }));
                }
            }
        }
        Err(error) => {
            reach.failed(&error);
            let error = Arc::new(error);
            for reply in asked.into_values().flatten() {
                let _ = reply.send(Err(Arc::clone(&error)));
            }
        }
    }
}
