//! Carries bytes.

use std::future::pending;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::fate::{End, Fate, Pass, Way};

/// The most bytes that are read at once.
const MOST: usize = 1 << 16;

/// The state of a proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) is_closed: bool,
    pub(super) is_stalled: bool,
    /// The number of times that all connections were cut.
    pub(super) cuts: usize,
}

/// Carries a connection until it ends, or the proxy ends it.
pub(super) async fn carry(client: TcpStream, server: SocketAddr, fate: impl Fate, state: watch::Receiver<State>) {
    let connection = async {
        // No server: no connection.
        if let Ok(upstream) = connect(server).await {
            connection(client, upstream, &fate, state).await;
        }
        fate.over();
    };
    tokio::join!(connection, fate.while_open(server));
}

pub(super) async fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connection(mut client: TcpStream, mut server: TcpStream, fate: &impl Fate, state: watch::Receiver<State>) {
    // An error: it has gone.
    let _ = client.set_nodelay(true);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let request = Pump { way: Way::Request, from: from_client, to: to_server, fate, state: &state };
    let response = Pump { way: Way::Response, from: from_server, to: to_client, fate, state: &state };
    let ended = tokio::select! {
        ended = async { tokio::try_join!(request.follow(), response.follow()) } => ended.map(drop),
        () = is_to_end(state.clone()) => Err(End::Rst),
    };
    match ended {
        Ok(()) => {}
        Err(End::Rst) => {
            for stream in [&client, &server] {
                // Errors: it is reset already.
                let _ = stream.set_zero_linger();
            }
        }
        Err(End::Fin | End::Half) => {
            tokio::join!(finish(&mut client), finish(&mut server));
        }
    }
}

/// Returns once the proxy is closed, or cuts all connections, or is open again after it was stalled.
async fn is_to_end(mut state: watch::Receiver<State>) {
    let State { mut is_stalled, cuts, .. } = *state.borrow();
    // An error: the proxy is gone, and this with it.
    let _ = state
        .wait_for(|now| {
            let was_stalled = std::mem::replace(&mut is_stalled, now.is_stalled);
            now.is_closed || now.cuts != cuts || (was_stalled && !now.is_stalled)
        })
        .await;
}

/// Ends a connection, and waits until its other end does so too: a socket closed with bytes unread would be reset.
async fn finish(stream: &mut TcpStream) {
    // Errors: it has ended already.
    let _ = stream.shutdown().await;
    let _ = tokio::io::copy(stream, &mut tokio::io::sink()).await;
}

/// One direction of a connection.
struct Pump<'a, F> {
    way: Way,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    fate: &'a F,
    state: &'a watch::Receiver<State>,
}

impl<F: Fate> Pump<'_, F> {
    /// Passes bytes on until there are no more, or both directions have to end.
    async fn follow(mut self) -> Result<(), End> {
        let mut arrives = true;
        let mut chunk = vec![0; MOST];
        loop {
            let most = match self.fate.before(self.way).await {
                Ok(most) => most.min(MOST),
                Err(end) => {
                    self.end(end).await?;
                    arrives = false;
                    MOST
                }
            };
            let count = self.from.read(&mut chunk[..most]).await.map_err(|_| End::Rst)?;
            if self.state.borrow().is_stalled {
                return pending().await;
            }
            let bytes = &chunk[..count];
            let (passes, end) = match self.fate.read(self.way, bytes).await {
                Pass::On => (count, None),
                Pass::Lost => (0, None),
                Pass::Cut(passes, end) => (passes.min(count), Some(end)),
            };
            if count == 0 {
                break;
            }
            if arrives && passes > 0 {
                // Whom the bytes go to may have gone; what it said before is still to be passed on.
                arrives = self.to.write_all(&bytes[..passes]).await.is_ok();
                if arrives {
                    self.fate.passed(self.way, passes);
                }
            }
            if let Some(end) = end {
                self.end(end).await?;
                arrives = false;
            }
        }
        if self.fate.tells_the_end(self.way) {
            // Errors: it is gone already.
            let _ = self.to.shutdown().await;
        }
        Ok(())
    }

    /// Ends this direction, or says that both are to end.
    async fn end(&mut self, end: End) -> Result<(), End> {
        if end != End::Half {
            return Err(end);
        }
        // Errors: it is gone already.
        let _ = self.to.shutdown().await;
        Ok(())
    }
}
