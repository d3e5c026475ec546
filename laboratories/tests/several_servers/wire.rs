//! A server's way to the database, over which all its connections go. It can be cut at any byte of a put.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use testkit::proxy::{End, Fate, Pass, Proxy, Way};

use crate::put::{Put, is_answered};

/// What is to become of a put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Which: the next one of this kind of row, after so many others.
    pub(crate) kind: i16,
    pub(crate) skipped: usize,
    /// The connection ends once so many bytes of the put, or of its answer, were forwarded; at byte 0 of the answer:
    /// when its first byte comes.
    pub(crate) way: Way,
    pub(crate) after: usize,
    pub(crate) end: End,
}

/// A way. It is closed when this is dropped.
pub(crate) struct Wire {
    proxy: Proxy,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    planned: Mutex<Option<Cut>>,
    /// How many puts were cut as planned.
    done: AtomicUsize,
    connections: AtomicUsize,
    /// The lengths of the last put that was watched for, and of its answer.
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

    /// The lengths of the last put that was planned for, and of its answer, as far as it was forwarded.
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

/// A connection.
struct Carried {
    shared: Arc<Shared>,
    /// The put whose answer is awaited, as planned, and how much of that has come.
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
    /// What is planned for these bytes, if they are the put that is waited for.
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
