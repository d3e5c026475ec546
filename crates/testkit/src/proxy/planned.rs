//! A plan that is followed.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::carry::connect;
use super::fate::{End, Fate, Pass, Way};
use super::plan::{Fault, Plan, Then};
use super::traffic::Traffic;

/// The most bytes that are read at once.
const MOST: usize = 1 << 14;

/// A connection as planned.
pub(super) struct Planned {
    plan: Plan,
    traffic: watch::Sender<Traffic>,
    request: Mutex<Direction>,
    response: Mutex<Direction>,
}

/// A direction of it.
struct Direction {
    /// The faults that are still to come.
    fault: Option<Fault>,
    is_swallowed: bool,
    /// The way in which it ends with its first byte.
    ends_at_once: Option<End>,
}

impl Planned {
    pub(super) fn new(plan: Plan, traffic: watch::Sender<Traffic>) -> Self {
        let direction = |fault: &Option<Fault>| {
            Mutex::new(Direction { fault: fault.clone(), is_swallowed: false, ends_at_once: None })
        };
        let (request, response) = (direction(&plan.request), direction(&plan.response));
        Self { plan, traffic, request, response }
    }

    fn with<T>(&self, way: Way, look: impl FnOnce(&mut Direction) -> T) -> T {
        let direction = if way == Way::Request { &self.request } else { &self.response };
        look(&mut direction.lock().expect("nothing panics with it"))
    }

    fn forwarded(&self, way: Way) -> usize {
        self.traffic.borrow().of(way).forwarded
    }

    fn is_cut(&self) {
        self.traffic.send_modify(|traffic| traffic.is_cut = true);
    }
}

impl Fate for Planned {
    async fn before(&self, way: Way) -> Result<usize, End> {
        let forwarded = self.forwarded(way);
        if let Some(due) = self.with(way, |way| way.fault.take_if(|fault| fault.after == forwarded)) {
            if let Some(until) = &due.until {
                until.comes(&self.traffic).await;
            }
            match due.then {
                Then::Pass => {}
                Then::Swallow => self.with(way, |way| way.is_swallowed = true),
                Then::Cut(end) if way == Way::Response && due.after == 0 => {
                    self.with(way, |way| way.ends_at_once = Some(end));
                    return Ok(1);
                }
                Then::Cut(end) => {
                    self.is_cut();
                    return Err(end);
                }
            }
        }
        let left = self.with(way, |way| way.fault.as_ref().map(|fault| fault.after - forwarded));
        Ok(left.unwrap_or(MOST).min(self.plan.chunk.unwrap_or(MOST)).min(MOST))
    }

    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        self.traffic.send_modify(|traffic| traffic.of_mut(way).take(bytes));
        let (ends, is_swallowed) = self.with(way, |way| (way.ends_at_once.take(), way.is_swallowed));
        match ends.filter(|_| !bytes.is_empty()) {
            Some(end) => {
                self.is_cut();
                Pass::Cut(0, end)
            }
            None if is_swallowed => Pass::Lost,
            None => Pass::On,
        }
    }

    fn passed(&self, way: Way, count: usize) {
        self.traffic.send_modify(|traffic| traffic.of_mut(way).forwarded += count);
    }

    /// If an answer is swallowed, its client's connection stays open.
    fn tells_the_end(&self, way: Way) -> bool {
        way == Way::Request || self.plan.swallows() != Some(way)
    }

    /// Sends what the client has sent once more, as planned, and takes what the server says to it.
    async fn while_open(&self, server: SocketAddr) {
        let Some(when) = &self.plan.again else { return };
        when.comes(&self.traffic).await;
        let mut stream = connect(server).await.expect("the server listens");
        let (mut from, mut to) = stream.split();
        let send = async {
            let mut sent = 0;
            let mut watched = self.traffic.subscribe();
            // It goes on until the link is dropped: an end of the client is not sent again.
            loop {
                let more = watched.wait_for(|traffic| traffic.request.read.len() > sent).await;
                let Ok(chunk) = more.map(|traffic| edited(&traffic.request.read[sent..], self.plan.edit)) else {
                    break;
                };
                sent += chunk.len();
                // Errors: the server has ended the connection, which is seen by who reads.
                let _ = to.write_all(&chunk).await;
            }
        };
        let read = async {
            let mut chunk = vec![0; 4096];
            loop {
                // A reset is an end.
                let count = from.read(&mut chunk).await.unwrap_or_default();
                self.traffic.send_modify(|traffic| traffic.again.take(&chunk[..count]));
                if count == 0 {
                    break;
                }
            }
        };
        tokio::select! {
            () = send => {}
            () = read => {}
        }
    }

    fn over(&self) {
        self.traffic.send_modify(|traffic| traffic.is_over = true);
    }
}

/// The bytes with one text in the place of another, wherever it is found.
fn edited(bytes: &[u8], edit: Option<(&str, &str)>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some((from, to)) = edit else { return bytes };
    let places = bytes.windows(from.len()).enumerate().filter(|(_, part)| *part == from.as_bytes());
    for place in places.map(|(place, _)| place).collect::<Vec<_>>() {
        bytes[place..place + from.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}
