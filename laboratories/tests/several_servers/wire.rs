//! A server's way to the database, over which all its connections go. It can be cut at any byte of a put, closed, or
//! swallow what is sent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::dice::loopback;
use crate::harness::proxy::{End, Way};
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

/// How the way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Connections end, and so do new ones.
    Closed,
    /// Connections stand, and nothing comes over them. When the way is open again, they end.
    Silent,
}

/// A way. It is closed when this is dropped.
pub(crate) struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    database: SocketAddr,
    state: watch::Sender<State>,
    /// How often all connections were cut.
    cut_all: watch::Sender<usize>,
    planned: Mutex<Option<Cut>>,
    /// How many puts were cut as planned.
    done: AtomicUsize,
    connections: AtomicUsize,
    /// The lengths of the last put that was watched for, and of its answer.
    lengths: Mutex<[usize; 2]>,
}

impl Wire {
    pub(crate) async fn to(database: SocketAddr) -> Self {
        let listener = TcpListener::bind((loopback(), 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            database,
            state: watch::Sender::new(State::Open),
            cut_all: watch::Sender::new(0),
            planned: Mutex::default(),
            done: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            lengths: Mutex::default(),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Self { address, shared, listening }
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }

    pub(crate) fn open(&self) {
        self.shared.state.send_replace(State::Open);
    }

    pub(crate) fn close(&self) {
        self.shared.state.send_replace(State::Closed);
    }

    pub(crate) fn silence(&self) {
        self.shared.state.send_replace(State::Silent);
    }

    /// Resets all connections there are.
    pub(crate) fn cut_all(&self) {
        self.shared.cut_all.send_modify(|times| *times += 1);
    }

    pub(crate) fn plan(&self, cut: Cut) {
        *self.shared.planned.lock().unwrap() = Some(cut);
    }

    /// How many puts were cut as planned.
    pub(crate) fn done(&self) -> usize {
        self.shared.done.load(Ordering::SeqCst)
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The lengths of the last put that was planned for, and of its answer, as far as it was forwarded.
    pub(crate) fn lengths(&self) -> [usize; 2] {
        *self.shared.lengths.lock().unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.close();
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (client, _) = listener.accept().await.expect("it listens");
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if *shared.state.borrow() == State::Closed {
                return;
            }
            shared.connections.fetch_add(1, Ordering::SeqCst);
            // No database: no connection.
            let Ok(database) = TcpStream::connect(shared.database).await else { return };
            let end = carry(client, database, &shared).await;
            drop(end);
        });
    }
}

/// Carries a connection until it ends, or is to end.
async fn carry(mut client: TcpStream, mut database: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    database.set_nodelay(true)?;
    let (mut state, mut cut_all) = (shared.state.subscribe(), shared.cut_all.subscribe());
    let (mut from_client, mut from_database) = (vec![0; 65_536], vec![0; 65_536]);
    // The put whose answer is awaited, as planned, and how much of that has come.
    let mut awaited: Option<(Cut, usize)> = None;
    let mut was_silent = false;
    loop {
        let now = *state.borrow_and_update();
        if now == State::Closed || (was_silent && now == State::Open) {
            return end(client, database, End::Rst).await;
        }
        was_silent = now == State::Silent;
        let is_open = now == State::Open;
        tokio::select! {
            _ = state.changed() => {}
            _ = cut_all.changed() => return end(client, database, End::Rst).await,
            read = client.read(&mut from_client), if is_open => {
                let bytes = &from_client[..read?];
                if bytes.is_empty() {
                    return end(client, database, End::Fin).await;
                }
                let cut = shared.planned_for(bytes);
                if let Some(Cut { way: Way::Request, after, end: how, .. }) = cut {
                    database.write_all(&bytes[..after.min(bytes.len())]).await?;
                    shared.done.fetch_add(1, Ordering::SeqCst);
                    return end(client, database, how).await;
                }
                awaited = cut.map(|cut| (cut, 0));
                database.write_all(bytes).await?;
            }
            read = database.read(&mut from_database), if is_open => {
                let bytes = &from_database[..read?];
                if bytes.is_empty() {
                    return end(client, database, End::Fin).await;
                }
                if let Some((cut, come)) = &mut awaited {
                    let left = cut.after - *come;
                    *come += bytes.len();
                    shared.lengths.lock().unwrap()[1] = *come;
                    if left <= bytes.len() {
                        client.write_all(&bytes[..left]).await?;
                        shared.done.fetch_add(1, Ordering::SeqCst);
                        return end(client, database, cut.end).await;
                    }
                    if is_answered(bytes) {
                        awaited = None;
                    }
                }
                client.write_all(bytes).await?;
            }
        }
    }
}

async fn end(mut client: TcpStream, mut database: TcpStream, how: End) -> std::io::Result<()> {
    match how {
        End::Rst => {
            client.set_zero_linger()?;
            database.set_zero_linger()
        }
        End::Fin | End::Half => {
            // Errors: it has ended already.
            let _ = tokio::join!(client.shutdown(), database.shutdown());
            Ok(())
        }
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
