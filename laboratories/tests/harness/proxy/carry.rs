//! How bytes are carried, as planned.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::plan::{End, Fault, Plan, Then, Way};
use super::traffic::{Flow, Traffic};

pub(super) async fn carry(listener: TcpListener, server: SocketAddr, plan: Plan, traffic: watch::Sender<Traffic>) {
    let (client, _) = listener.accept().await.expect("it listens");
    drop(listener);
    let upstream = connect(server).await;
    client.set_nodelay(true).expect("it is connected");
    tokio::join!(connection(client, upstream, &plan, &traffic), again(server, &plan, &traffic));
}

async fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).await.expect("the server listens");
    stream.set_nodelay(true).expect("it is connected");
    stream
}

async fn connection(mut client: TcpStream, mut server: TcpStream, plan: &Plan, traffic: &watch::Sender<Traffic>) {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let request = Pump { way: Way::Request, from: from_client, to: to_server, plan, traffic };
    let response = Pump { way: Way::Response, from: from_server, to: to_client, plan, traffic };
    match tokio::try_join!(request.follow(plan.request.as_ref()), response.follow(plan.response.as_ref())) {
        Ok(_) => {}
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
    drop((client, server));
    traffic.send_modify(|traffic| traffic.is_over = true);
}

/// Ends a connection, and waits until its other end does so too: a socket closed with bytes unread would be reset.
async fn finish(stream: &mut TcpStream) {
    // Errors: it has ended already.
    let _ = stream.shutdown().await;
    let _ = tokio::io::copy(stream, &mut tokio::io::sink()).await;
}

/// One direction of a connection.
struct Pump<'a> {
    way: Way,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    plan: &'a Plan,
    traffic: &'a watch::Sender<Traffic>,
}

impl Pump<'_> {
    /// Forwards bytes as planned until there are no more, or both directions have to end.
    async fn follow(mut self, mut fault: Option<&Fault>) -> Result<(), End> {
        let mut forwarded = 0;
        let mut arrives = true;
        loop {
            if let Some(due) = fault.take_if(|fault| forwarded == fault.after) {
                arrives = self.meet(due).await? && arrives;
            }
            let most = fault.map_or(usize::MAX, |fault| fault.after - forwarded);
            let Some(chunk) = self.read(most).await? else { break };
            if arrives {
                // Whom the bytes go to may have gone; what it said before is still to be forwarded.
                arrives = self.to.write_all(&chunk).await.is_ok();
            }
            if arrives {
                forwarded += chunk.len();
                self.note(|flow| flow.forwarded = forwarded);
            }
        }
        // A client whose answer is swallowed is not told that there will be none.
        let is_mute = self.plan.swallows() == Some(self.way) && self.way == Way::Response;
        if !is_mute {
            // Errors: it is gone already.
            let _ = self.to.shutdown().await;
        }
        Ok(())
    }

    /// Gives whether what follows arrives.
    async fn meet(&mut self, fault: &Fault) -> Result<bool, End> {
        if let Some(until) = &fault.until {
            until.comes(self.traffic).await;
        }
        let end = match fault.then {
            Then::Pass => return Ok(true),
            Then::Swallow => return Ok(false),
            Then::Cut(end) => end,
        };
        if self.way == Way::Response && fault.after == 0 && self.read(1).await?.is_none() {
            return Ok(true);
        }
        self.traffic.send_modify(|traffic| traffic.is_cut = true);
        if end != End::Half {
            return Err(end);
        }
        // Errors: it is gone already.
        let _ = self.to.shutdown().await;
        Ok(false)
    }

    /// Reads what is there, at most so much; `None` at the end.
    async fn read(&mut self, most: usize) -> Result<Option<Vec<u8>>, End> {
        let mut chunk = vec![0; most.min(self.plan.chunk.unwrap_or(usize::MAX)).min(16_384)];
        let count = self.from.read(&mut chunk).await.map_err(|_| End::Rst)?;
        chunk.truncate(count);
        self.note(|flow| flow.take(&chunk));
        Ok((count > 0).then_some(chunk))
    }

    fn note(&self, note: impl FnOnce(&mut Flow)) {
        self.traffic.send_modify(|traffic| note(traffic.of_mut(self.way)));
    }
}

/// Sends what the client has sent once more, as planned, and takes what the server says to it.
async fn again(server: SocketAddr, plan: &Plan, traffic: &watch::Sender<Traffic>) {
    let Some(when) = &plan.again else { return };
    when.comes(traffic).await;
    let mut stream = connect(server).await;
    let (mut from, mut to) = stream.split();
    let send = async {
        let mut sent = 0;
        let mut watched = traffic.subscribe();
        // It goes on until the link is dropped: an end of the client is not sent again.
        loop {
            let news = watched.wait_for(|traffic| traffic.request.read.len() > sent).await;
            let Ok(chunk) = news.map(|traffic| edited(&traffic.request.read[sent..], plan.edit)) else { break };
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
            traffic.send_modify(|traffic| traffic.again.take(&chunk[..count]));
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
