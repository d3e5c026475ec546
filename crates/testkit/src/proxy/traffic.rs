//! The traffic of a connection.

use std::fmt;

use super::fate::Way;

/// The bytes that have come over a connection so far.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    pub request: Flow,
    pub response: Flow,
    /// The server's answer to the bytes that were sent again.
    pub again: Flow,
    pub is_cut: bool,
    /// `true` if the connection has ended on both sides.
    pub is_over: bool,
}

/// The bytes that have come in one direction.
#[derive(Clone, Default)]
pub struct Flow {
    pub read: Vec<u8>,
    /// The number of them that were forwarded.
    pub forwarded: usize,
    pub ended: bool,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, forwarded, ended } = self;
        write!(f, "{} read, {forwarded} forwarded, ended: {ended}: {}", read.len(), read.escape_ascii())
    }
}

impl Flow {
    /// Returns whether so many bytes have come, or no more will come.
    pub(super) fn has(&self, count: usize) -> bool {
        self.read.len() >= count || self.ended
    }

    pub(super) fn take(&mut self, chunk: &[u8]) {
        self.read.extend_from_slice(chunk);
        self.ended = chunk.is_empty();
    }
}

impl Traffic {
    pub(super) fn of(&self, way: Way) -> &Flow {
        match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        }
    }

    pub(super) fn of_mut(&mut self, way: Way) -> &mut Flow {
        match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        }
    }
}
