//! A connection on which a test says bytes of its own: half a request, or what no client would say.

use std::future::pending;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::answer::Answer;

/// A client's connection of HTTP/1.1.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// The bytes that have come and were not read yet.
    heard: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, heard: Vec::new() })
    }

    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next answer; `None` if the connection ends before its end.
    pub async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, rest)) = first_answer(&self.heard) {
                self.heard = rest.to_vec();
                return Some(answer);
            }
            // A reset is an end.
            self.stream.read_buf(&mut self.heard).await.ok().filter(|count| *count > 0)?;
        }
    }

    /// Says bytes, and takes answers until there are so many, or no more will come.
    pub async fn answers(mut self, bytes: &[u8], count: usize) -> Vec<Answer> {
        let (mut from, mut to) = self.stream.split();
        let send = async {
            // Errors: the connection is broken, which is seen by who reads.
            let _ = to.write_all(bytes).await;
            pending::<()>().await;
        };
        let read = async {
            // A reset is an end.
            while answers(&self.heard).len() < count && matches!(from.read_buf(&mut self.heard).await, Ok(1..)) {}
        };
        tokio::select! {
            () = send => {}
            () = read => {}
        }
        answers(&self.heard)
    }

    /// All that comes until the connection ends.
    pub async fn rest(mut self) -> io::Result<Vec<u8>> {
        self.stream.read_to_end(&mut self.heard).await?;
        Ok(self.heard)
    }
}

/// Sends a request, of which `body` bytes follow the head, over a connection of its own, and reads only then, as many
/// clients do. Returns the answer's head and body as they come. An error: the answer is lost.
pub async fn sends_before_it_reads(address: SocketAddr, head: String, body: usize) -> io::Result<String> {
    static PART: [u8; 64 * 1024] = [b'a'; 64 * 1024];
    let sends_and_reads = move || {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(head.as_bytes())?;
        for begun in (0..body).step_by(PART.len()) {
            stream.write_all(&PART[..PART.len().min(body - begun)])?;
        }
        let (mut answer, mut bytes) = (Vec::new(), [0; 4096]);
        // Some answers keep the connection.
        while answers(&answer).is_empty() {
            match stream.read(&mut bytes)? {
                0 => break,
                length => answer.extend_from_slice(&bytes[..length]),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::task::spawn_blocking(sends_and_reads).await?
}

/// The whole answers that a server has given over a connection of HTTP/1.1.
pub fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((answer, rest)) = first_answer(bytes) {
        answers.push(answer);
        bytes = rest;
    }
    answers
}

fn first_answer(bytes: &[u8]) -> Option<(Answer, &[u8])> {
    const END: &[u8] = b"\r\n\r\n";
    let end = bytes.windows(END.len()).position(|part| part == END)?;
    let head = std::str::from_utf8(&bytes[..end]).expect("the headers of these servers are text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.and_then(|status| status.parse::<StatusCode>().ok()).expect("a status line");
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        let name: HeaderName = name.parse().expect("a header's name");
        headers.append(name, HeaderValue::from_str(value).expect("a header's value"));
    }
    let length = match headers.get("content-length") {
        None if status.is_informational() => 0,
        length => length.and_then(|length| length.to_str().ok()?.parse().ok()).expect("a length is declared"),
    };
    let (body, rest) = bytes[end + END.len()..].split_at_checked(length)?;
    Some((Answer { status, headers, body: Bytes::copy_from_slice(body), trailers: None }, rest))
}
