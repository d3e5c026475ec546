//! A network that swallows, cuts and repeats calls of tools.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use testkit::proxy::{End, Fate, Pass, Proxy, Way};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// How many calls of tools have met each fault.
#[derive(Debug, Default)]
pub(super) struct Faults {
    calls: AtomicUsize,
    /// Answers that never come, on connections that stay open.
    pub(super) swallowed: AtomicUsize,
    /// Requests and answers that break off.
    pub(super) cut: AtomicUsize,
    /// Requests that come twice.
    pub(super) repeated: AtomicUsize,
}

/// A way to a server, which every second call meets with a fault.
pub(super) async fn faulty(server: SocketAddr) -> (Proxy, Arc<Faults>) {
    let faults = Arc::<Faults>::default();
    let counted = Arc::clone(&faults);
    let fate = move |_| Some(Faulty { server, faults: Arc::clone(&counted), now: Mutex::default() });
    (Proxy::to(server, fate).await, faults)
}

/// What becomes of the answer to the call that is under way.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Swallowed,
    /// So many bytes of it arrive.
    Cut(usize),
}

struct Faulty {
    server: SocketAddr,
    faults: Arc<Faults>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// What has come of the request since the last answer.
    request: Vec<u8>,
    is_call: bool,
    is_answered: bool,
    repeats: bool,
    answer: Option<Answer>,
}

impl Now {
    /// Returns whether all of the request is there. Every client says how long its request is.
    fn is_whole(&self) -> bool {
        let text = String::from_utf8_lossy(&self.request).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| body.len() >= length)
    }
}

impl Fate for Faulty {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        let mut now = self.now.lock().unwrap();
        if way == Way::Response {
            now.is_answered = true;
            return match &mut now.answer {
                Some(Answer::Swallowed) => Pass::Lost,
                Some(Answer::Cut(left)) if *left <= bytes.len() => Pass::Cut(*left, End::Rst),
                Some(Answer::Cut(left)) => {
                    *left -= bytes.len();
                    Pass::On
                }
                None => Pass::On,
            };
        }
        if std::mem::take(&mut now.is_answered) {
            *now = Now::default();
        }
        now.request.extend_from_slice(bytes);
        if !now.is_call && now.request.windows(12).any(|part| part == b"\"tools/call\"") {
            now.is_call = true;
            let number = self.faults.calls.fetch_add(1, Ordering::SeqCst);
            match number % 10 {
                1 => {
                    self.faults.swallowed.fetch_add(1, Ordering::SeqCst);
                    now.answer = Some(Answer::Swallowed);
                }
                // In the head, or after it.
                3 | 5 => {
                    self.faults.cut.fetch_add(1, Ordering::SeqCst);
                    now.answer = Some(Answer::Cut(number * 29 % 400));
                }
                7 => {
                    self.faults.cut.fetch_add(1, Ordering::SeqCst);
                    return Pass::Cut(bytes.len() / 2, End::Rst);
                }
                9 => now.repeats = true,
                _ => {}
            }
        }
        if now.repeats && now.is_whole() {
            now.repeats = false;
            self.faults.repeated.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(send(self.server, now.request.clone()));
        }
        Pass::On
    }

    /// The connection of an answer that is swallowed stays open.
    fn tells_the_end(&self, way: Way) -> bool {
        way == Way::Request || !matches!(self.now.lock().unwrap().answer, Some(Answer::Swallowed))
    }
}

/// Sends a request on a connection of its own, and takes the answer, if there is one.
async fn send(server: SocketAddr, request: Vec<u8>) {
    let Ok(mut stream) = TcpStream::connect(server).await else { return };
    if stream.write_all(&request).await.is_ok() {
        // An error: the server is gone.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}
