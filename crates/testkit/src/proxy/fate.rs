//! The faults of a connection.

use std::net::SocketAddr;

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Request,
    Response,
}

/// The way in which a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An orderly end, towards both sides.
    Fin,
    /// A reset, towards both sides.
    Rst,
    /// An orderly end, but only towards whom the bytes go to: the other direction stays.
    Half,
}

/// The fault that bytes meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    On,
    Lost,
    /// So many of them pass, and then the connection ends.
    Cut(usize, End),
}

/// The faults of a connection, as its bytes come. By default all of them pass.
pub trait Fate: Send + Sync + 'static {
    /// Before more is read in a direction: how much is read at most. An error: the connection ends.
    fn before(&self, _way: Way) -> impl Future<Output = Result<usize, End>> + Send {
        async { Ok(usize::MAX) }
    }

    /// Takes the bytes that were read and have to be passed on; none at the end. Later bytes wait until this returns.
    fn read(&self, _way: Way, _bytes: &[u8]) -> impl Future<Output = Pass> + Send {
        async { Pass::On }
    }

    /// So many bytes were passed on.
    fn passed(&self, _way: Way, _count: usize) {}

    /// Returns whether the end of this direction is passed on to the other side.
    fn tells_the_end(&self, _way: Way) -> bool {
        true
    }

    /// Runs while the connection is open.
    fn while_open(&self, _server: SocketAddr) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The connection has ended on both sides.
    fn over(&self) {}
}

/// Everything arrives.
impl Fate for () {}
