//! The plan of a connection's faults.

use tokio::sync::watch;

use super::fate::{End, Way};
use super::traffic::Traffic;
use crate::Gate;

/// The event that a fault waits for.
#[derive(Debug, Clone)]
pub enum Until {
    Told(Gate),
    /// So many bytes have come from there, or no more will come.
    Read(Way, usize),
    /// The connection has ended on both sides.
    Over,
}

impl Until {
    pub(super) async fn comes(&self, traffic: &watch::Sender<Traffic>) {
        let mut traffic = traffic.subscribe();
        // Errors: the sender is held by who waits.
        match self {
            Self::Told(gate) => gate.pass().await,
            Self::Read(way, count) => {
                let _ = traffic.wait_for(|traffic| traffic.of(*way).has(*count) || traffic.is_over).await;
            }
            Self::Over => {
                let _ = traffic.wait_for(|traffic| traffic.is_over).await;
            }
        }
    }
}

/// The fault of a direction, once so many bytes were forwarded.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) after: usize,
    pub(super) until: Option<Until>,
    pub(super) then: Then,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    Pass,
    Swallow,
    Cut(End),
}

/// The faults of a connection: at most one in each direction, and perhaps a second copy of its request.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub(super) request: Option<Fault>,
    pub(super) response: Option<Fault>,
    pub(super) again: Option<Until>,
    pub(super) edit: Option<(&'static str, &'static str)>,
    pub(super) chunk: Option<usize>,
}

impl Plan {
    /// Everything arrives.
    pub fn pass() -> Self {
        Self::default()
    }

    /// The connection is cut as soon as `after` bytes of a direction were forwarded; at byte 0 of the response: when
    /// its first byte comes.
    pub fn cut(self, way: Way, after: usize, end: End) -> Self {
        self.with(way, after, None, Then::Cut(end))
    }

    /// The same, but there is a wait before the cut.
    pub fn cut_when(self, way: Way, after: usize, until: Until, end: End) -> Self {
        self.with(way, after, Some(until), Then::Cut(end))
    }

    /// Bytes after the first `after` wait.
    pub fn hold(self, way: Way, after: usize, until: Until) -> Self {
        self.with(way, after, Some(until), Then::Pass)
    }

    /// Bytes after the first `after` are lost, and the connection stays open until its client gives up.
    pub fn swallow(self, way: Way, after: usize) -> Self {
        self.with(way, after, None, Then::Swallow)
    }

    fn with(mut self, way: Way, after: usize, until: Option<Until>, then: Then) -> Self {
        let fault = Some(Fault { after, until, then });
        match way {
            Way::Request => self.request = fault,
            Way::Response => self.response = fault,
        }
        self
    }

    /// The client's bytes are sent once more, over a second connection to the server: those that have come until then,
    /// and what comes later as it comes.
    pub fn again(mut self, when: Until) -> Self {
        self.again = Some(when);
        self
    }

    /// In what is sent again, one text is replaced by another of the same length.
    pub fn edited(mut self, from: &'static str, to: &'static str) -> Self {
        assert_eq!(from.len(), to.len(), "a request declares its length");
        self.edit = Some((from, to));
        self
    }

    /// Nothing is forwarded in chunks of more than so many bytes.
    pub fn in_chunks(mut self, most: usize) -> Self {
        self.chunk = Some(most);
        self
    }

    pub fn cuts(&self) -> bool {
        let is_cut = |fault: &&Fault| matches!(fault.then, Then::Cut(_));
        [&self.request, &self.response].into_iter().flatten().any(|fault| is_cut(&fault))
    }

    /// The direction whose bytes never arrive although the connection stays open.
    pub fn swallows(&self) -> Option<Way> {
        let is_swallowed = |fault: &Option<Fault>| matches!(fault, Some(Fault { then: Then::Swallow, .. }));
        let swallowed = |way, fault| is_swallowed(fault).then_some(way);
        swallowed(Way::Request, &self.request).or_else(|| swallowed(Way::Response, &self.response))
    }

    pub fn is_sent_again(&self) -> bool {
        self.again.is_some()
    }

    pub fn is_edited(&self) -> bool {
        self.edit.is_some()
    }
}
