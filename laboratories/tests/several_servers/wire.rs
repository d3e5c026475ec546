//! A server's link to the database, which carries all its connections. It can be cut at any byte of a put.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use testkit::proxy::{End, Fate, Pass, Proxy, Way};

use crate::put::{Put, is_answered};

/// The plan for a cut of a put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// The put: the next one of this kind of row, after `skipped` others.
    pub(crate) kind: i16,
    pub(crate) skipped: usize,
    /// The moment: the connection ends once `after` bytes of the put, or of its answer, were forwarded; at byte 0 of
    /// the answer, when its first byte comes.
    pub(crate) way: Way,
    pub(crate) after: usize,
    pub(crate) end: End,
}

/// A link. Dropping it closes it.
pub(crate) struct Wire {
    proxy: Proxy,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    planned: Mutex<Option<Cut>>,
    /// The number of puts that were cut as planned.
    done: AtomicUsize,
    connections: AtomicUsize,
    /// The lengths of the last planned put, and of its answer.
    lengths: Mutex<[usize; 2]>,
}

impl Wire {
    pub(crate) async fn to(database: SocketAddr) -> Self {
        let shared = Arc::<Shared>::default();
        let wire = Arc::clone(&shared);
        let fate = move |_| {
            wire.connections.fetch_add(1, Ordering::SeqCst);
            Some(Carried { shared: Arc::clone(&wire), awaited: Mutex::default() })
        };
        Self { proxy: Proxy::to(database, fate).await, shared }
    }

    pub(crate) fn plan(&self, cut: Cut) {
        *self.shared.planned.lock().unwrap() = Some(cut);
    }

    /// Returns how many puts were cut as planned.
    pub(crate) fn done(&self) -> usize {
        self.shared.done.load(Ordering::SeqCst)
    }

    /// Returns how many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Returns the lengths of the last planned put, and of its answer, as far as it was forwarded.
    pub(crate) fn lengths(&self) -> [usize; 2] {
        *self.shared.lengths.lock().unwrap()
    }
}

impl Deref for Wire {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

/// One connection of the link.
struct Carried {
    shared: Arc<Shared>,
    /// The planned put whose answer has not come whole, and the number of bytes that have come.
    awaited: Mutex<Option<(Cut, usize)>>,
}

impl Fate for Carried {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        if bytes.is_empty() {
            return Pass::On;
        }
        let mut awaited = self.awaited.lock().unwrap();
        let (after, end) = match way {
            Way::Request => {
                let cut = self.shared.planned_for(bytes);
                let Some(Cut { way: Way::Request, after, end, .. }) = cut else {
                    *awaited = cut.map(|cut| (cut, 0));
                    return Pass::On;
                };
                (after, end)
            }
            Way::Response => {
                let Some((cut, come)) = &mut *awaited else { return Pass::On };
                let left = cut.after - *come;
                *come += bytes.len();
                self.shared.lengths.lock().unwrap()[1] = *come;
                if left > bytes.len() {
                    if is_answered(bytes) {
                        *awaited = None;
                    }
                    return Pass::On;
                }
                (left, cut.end)
            }
        };
        self.shared.done.fetch_add(1, Ordering::SeqCst);
        Pass::Cut(after, end)
    }
}

impl Shared {
    /// Takes the plan for these bytes, if they are the put that the plan names.
    fn planned_for(&self, bytes: &[u8]) -> Option<Cut> {
        let mut planned = self.planned.lock().unwrap();
        let cut = planned.as_mut()?;
        Put::read(bytes).filter(|put| put.kind == cut.kind)?;
        if cut.skipped > 0 {
            cut.skipped -= 1;
            return None;
        }
        *self.lengths.lock().unwrap() = [bytes.len(), 0];
        planned.take()
    }
}
