//! The way of one process to the database, and what happens to calls on it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use futures_util::future::{Either, select};
use tokio::sync::{oneshot, watch};
use tower_idempotency_shared::BackendError;

use super::call::{Call, Counts, Fault};
use super::hold::{Act, Hold, Queue, Reply};
use super::link::{Link, OVERHEAD};
use super::locked::lock;
use super::random::{Drawn, FaultRates, Random};

pub(super) struct Way {
    holds: Mutex<Vec<Arc<Queue>>>,
    answer_holds: Mutex<Vec<Arc<Queue>>>,
    faults: Mutex<HashMap<Call, VecDeque<Fault>>>,
    random: Mutex<Option<Random>>,
    late: Mutex<VecDeque<Act>>,
    is_cut: watch::Sender<bool>,
    counts: Mutex<Counts>,
    link: Mutex<Option<Arc<Link>>>,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            holds: Mutex::default(),
            answer_holds: Mutex::default(),
            faults: Mutex::default(),
            random: Mutex::default(),
            late: Mutex::default(),
            is_cut: watch::Sender::new(false),
            counts: Mutex::default(),
            link: Mutex::default(),
        }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way")
            .field("is_cut", &*self.is_cut.borrow())
            .field("late", &self.late())
            .finish_non_exhaustive()
    }
}

impl Way {
    pub(super) fn fail_next(&self, call: Call, fault: Fault) {
        lock(&self.faults).entry(call).or_default().push_back(fault);
    }

    pub(super) fn fail_at_random(&self, faults: Option<(u64, FaultRates)>) {
        *lock(&self.random) = faults.map(|(seed, rates)| Random::new(seed, rates));
    }

    pub(super) fn hold(&self, call: Call) -> Hold {
        hold(&self.holds, call)
    }

    pub(super) fn hold_answers(&self, call: Call) -> Hold {
        hold(&self.answer_holds, call)
    }

    pub(super) fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }

    pub(super) fn late(&self) -> usize {
        lock(&self.late).len()
    }

    /// The one of the late calls that has this number, counted around.
    fn deliver_one(&self, which: usize) {
        let act = {
            let mut late = lock(&self.late);
            if late.is_empty() { None } else { Some(which % late.len()).and_then(|which| late.remove(which)) }
        };
        act.into_iter().for_each(|act| act());
    }

    pub(super) fn deliver_late(&self) -> usize {
        let late = std::mem::take(&mut *lock(&self.late));
        late.into_iter().map(|act| act()).count()
    }

    pub(super) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut lock(&self.counts));
    }

    pub(super) fn link(&self, bytes_per_second: Option<u64>) {
        *lock(&self.link) = bytes_per_second.map(|bytes| Arc::new(Link::new(bytes)));
    }

    /// Sends a call of so many bytes over the link, if there is one. `answered` says how many bytes its answer has. A
    /// call whose future was dropped goes on.
    pub(super) async fn send_bytes<T: Send + 'static>(
        self: &Arc<Self>,
        call: Call,
        bytes: usize,
        answered: impl FnOnce(&T) -> usize + Send + 'static,
        arrive: impl Fn(Reply<T>) + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let Some(link) = lock(&self.link).clone() else { return self.send(call, arrive).await };
        let way = Arc::clone(self);
        let carried = tokio::spawn(async move {
            link.there.carry(OVERHEAD + bytes).await;
            let answer = way.send(call, arrive).await?;
            link.back.carry(OVERHEAD + answered(&answer)).await;
            Ok(answer)
        });
        carried.await.unwrap_or_else(|_| Err(uncertain("it was lost")))
    }

    /// Sends a call. `arrive` is what happens when it reaches the database.
    pub(super) async fn send<T: Send + 'static>(
        &self,
        call: Call,
        arrive: impl Fn(Reply<T>) + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let drawn = lock(&self.random).as_mut().map(Random::draw).unwrap_or_default();
        pause(&drawn.there).await;
        if let Some(which) = drawn.deliver {
            self.deliver_one(which);
        }
        let mut is_cut = self.is_cut.subscribe();
        if *is_cut.borrow_and_update() {
            return Err(nothing("the way is cut"));
        }
        let answer = self.dispatch(call, &drawn, Arc::new(arrive))?;
        let cut = std::pin::pin!(is_cut.wait_for(|is_cut| *is_cut));
        let answer = match select(answer, cut).await {
            Either::Left((Ok(answer), _)) => answer,
            Either::Left((Err(_), _)) => Err(uncertain("it was lost")),
            Either::Right(_) => Err(uncertain("the way was cut")),
        };
        pause(&drawn.back).await;
        answer
    }

    fn dispatch<T: Send + 'static>(
        &self,
        call: Call,
        drawn: &Drawn,
        arrive: Arc<dyn Fn(Reply<T>) + Send + Sync>,
    ) -> Result<oneshot::Receiver<Result<T, BackendError>>, BackendError> {
        let fault = lock(&self.faults).get_mut(&call).and_then(VecDeque::pop_front).or(drawn.fault);
        let (to, answer) = oneshot::channel();
        let again = Arc::clone(&arrive);
        let late = move || lock(&self.late).push_back(Box::new(move || again(Reply::nowhere())));
        let mut reply = Reply::new(to, held_by(&self.answer_holds, call));
        match fault {
            Some(Fault::Refuse) => return Err(nothing("the test said so")),
            Some(Fault::LoseCall) => return Err(uncertain("the test said so")),
            Some(Fault::Late) => {
                late();
                return Err(uncertain("the test said so"));
            }
            Some(Fault::Double) => late(),
            Some(Fault::LoseAnswer) => reply = Reply::nowhere(),
            None => {}
        }
        Queue::hold_up(held_by(&self.holds, call).as_ref(), Box::new(move || arrive(reply)));
        Ok(answer)
    }
}

async fn pause(duration: &std::time::Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(*duration).await;
    }
}

fn hold(holds: &Mutex<Vec<Arc<Queue>>>, call: Call) -> Hold {
    let queue = Queue::new(call);
    lock(holds).push(Arc::clone(&queue));
    Hold::new(queue)
}

/// The latest that is still there.
fn held_by(holds: &Mutex<Vec<Arc<Queue>>>, call: Call) -> Option<Arc<Queue>> {
    lock(holds).iter().rev().find(|queue| queue.is_for(call)).cloned()
}

pub(super) fn nothing(why: &'static str) -> BackendError {
    BackendError::Nothing(why.into())
}

pub(super) fn uncertain(why: &'static str) -> BackendError {
    BackendError::Uncertain(why.into())
}
