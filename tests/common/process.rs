//! The example payment server as a process of its own, and a client that speaks to it over real sockets.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::lab::Answer;

/// What a server is called by, whatever its port: the host is part of what a retry must repeat.
const HOST: &str = "pay.example";
/// How often something is looked at that will come about, and after how long that is given up.
const LOOK: Duration = Duration::from_millis(10);
const GIVE_UP: Duration = Duration::from_secs(60);

/// How to start servers, one after the other, on one data directory.
#[derive(Debug, Clone)]
pub struct Setup {
    pub data: PathBuf,
    listen: SocketAddr,
    arguments: Vec<OsString>,
    log: String,
    wrapper: Vec<OsString>,
}

impl Setup {
    pub fn new(directory: impl AsRef<Path>) -> Self {
        let log = "info,sled=warn,payment_server=debug".to_owned();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { data: directory.as_ref().join("data"), listen, arguments: Vec::new(), log, wrapper: Vec::new() }
    }

    /// Adds arguments, separated by blanks.
    pub fn with(mut self, arguments: &str) -> Self {
        self.arguments.extend(arguments.split(' ').map(OsString::from));
        self
    }

    /// Elsewhere than at any free port.
    pub fn listening(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    pub fn log(mut self, filter: &str) -> Self {
        filter.clone_into(&mut self.log);
        self
    }

    /// Starts the server through another program.
    pub fn under(mut self, wrapper: impl IntoIterator<Item = OsString>) -> Self {
        self.wrapper = wrapper.into_iter().collect();
        self
    }

    pub fn command(&self) -> Command {
        let mut words = self.wrapper.iter().cloned().chain([program().into_os_string()]);
        let mut command = Command::new(words.next().expect("there is at least the program"));
        command
            .args(words)
            .arg("--listen")
            .arg(self.listen.to_string())
            .arg("--data")
            .arg(&self.data)
            .args(&self.arguments);
        command.env("RUST_LOG", &self.log).env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn start(&self) -> Server {
        let Launched { child, mut stdout, log } = self.launch();
        let first = first_line(&mut stdout);
        server(child, stdout, log, &first).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts the process and does not wait until it listens: it can be killed while it opens its store.
    pub fn launch(&self) -> Launched {
        let mut child =
            self.command().spawn().expect("`cargo build --example payment_server` first; `cargo test` alone does");
        let log = drain(child.stderr.take().expect("it is piped"));
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Launched { child: Process(child), stdout, log }
    }
}

/// The help of the example's command line, which names all its options.
pub fn help() -> String {
    let output = Command::new(program()).arg("--help").output();
    let output = output.expect("`cargo build --example payment_server` first; `cargo test` alone does");
    String::from_utf8(output.stdout).expect("the help is text")
}

/// A process, killed when dropped.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn kill(&mut self) {
        self.0.kill().expect("its own child");
        self.0.wait().expect("its own child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors: it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that may not listen yet.
#[derive(Debug)]
pub struct Launched {
    child: Process,
    stdout: BufReader<ChildStdout>,
    pub log: Output,
}

impl Launched {
    /// Waits until it listens; where it ends before, or takes a minute, says why.
    pub async fn listening(self) -> Result<Server, String> {
        let Self { mut child, mut stdout, log } = self;
        let reading = tokio::task::spawn_blocking(move || {
            let first = first_line(&mut stdout);
            (first, stdout)
        });
        match tokio::time::timeout(GIVE_UP, reading).await {
            Ok(read) => {
                let (first, stdout) = read.expect("reading does not panic");
                server(child, stdout, log, &first)
            }
            Err(_) => {
                child.kill();
                Err(format!("the server did not start in time: {}", log.text()))
            }
        }
    }

    /// SIGKILL, however far it has come. Says whether it had ended by itself before.
    pub fn kill(mut self) -> bool {
        let has_ended = self.child.0.try_wait().expect("its own child").is_some();
        self.child.kill();
        has_ended
    }
}

fn first_line(stdout: &mut impl BufRead) -> String {
    let mut first = String::new();
    stdout.read_line(&mut first).expect("the server's output can be read");
    first
}

/// The server that says where it listens; otherwise it has ended, and its log says why.
fn server(mut child: Process, stdout: BufReader<ChildStdout>, log: Output, first: &str) -> Result<Server, String> {
    let address = first.trim_end().strip_prefix("listening on http://").and_then(|address| address.parse().ok());
    let Some(address) = address else {
        let status = child.0.wait().expect("its own child");
        return Err(format!("the server did not start: {status}, {first:?}, {}", log.text()));
    };
    Ok(Server { child, address, output: drain(stdout), log })
}

/// The example: where it is a program of the package under test, as in the laboratories, that one; else the one that
/// stands beside the directory of the test programs.
fn program() -> PathBuf {
    let own = option_env!("CARGO_BIN_EXE_payment_server");
    if let Some(own) = own {
        return own.into();
    }
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.parent().and_then(Path::parent).expect("tests are built into target/<profile>/deps");
    profile.join("examples").join(format!("payment_server{}", std::env::consts::EXE_SUFFIX))
}

/// What a process has written so far.
#[derive(Debug, Clone, Default)]
pub struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_whole: Arc<AtomicBool>,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// All that the process, which has ended, has written.
    pub async fn whole(&self) -> String {
        eventually("the end of the output", || self.is_whole.load(Ordering::SeqCst).then(|| self.text())).await
    }
}

/// Reads on, so that the process never waits for a full pipe.
fn drain(mut pipe: impl Read + Send + 'static) -> Output {
    let output = Output::default();
    let kept = output.clone();
    std::thread::spawn(move || {
        let mut chunk = [0; 8192];
        while let Ok(read @ 1..) = pipe.read(&mut chunk) {
            kept.bytes.lock().unwrap().extend_from_slice(&chunk[..read]);
        }
        kept.is_whole.store(true, Ordering::SeqCst);
    });
    output
}

/// Looks until there is something.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < GIVE_UP, "it never came about: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Sends a process a signal, through the shell's own `kill`: a small system has no program of that name.
pub fn signal(process: u32, name: &str) {
    let kill = format!(r#"kill -{name} "$0""#);
    let status = Command::new("sh").args(["-c", &kill, &process.to_string()]).status();
    assert!(status.expect("there is a shell").success());
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Process,
    pub address: SocketAddr,
    pub output: Output,
    pub log: Output,
}

impl Server {
    /// Sends one request over an HTTP/1.1 connection of its own.
    pub async fn send(&self, call: &Call) -> Answer {
        let mut connection = Connection::http1(self.address).await.expect("the server listens");
        connection.send(call).await.expect("the server answers")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&Call::get(path)).await
    }

    /// Sends a request until it is no longer in flight.
    pub async fn send_until_settled(&self, call: &Call) -> Answer {
        let began = Instant::now();
        loop {
            let answer = self.send(call).await;
            if answer.problem() != "in-flight" {
                return answer;
            }
            assert!(began.elapsed() < GIVE_UP, "in flight for ever");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The demo account's charges, the newest first.
    pub async fn charges(&self) -> Vec<serde_json::Value> {
        let list = self.get("/v1/charges?limit=1000000").await.json();
        assert_eq!(list["has_more"], false);
        list["data"].as_array().expect("a list").clone()
    }

    /// The operations that were interrupted: id and fence.
    pub async fn interrupted(&self) -> Vec<(String, String)> {
        let list = self.get("/admin/interrupted").await.json();
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let lines = list["data"].as_array().expect("a list").iter();
        lines.map(|line| (text(&line["id"]), text(&line["fence"]))).collect()
    }

    /// Waits until the handler has begun `count` charges with this source.
    pub async fn charge_begun(&self, source: &str, count: usize) {
        let line = format!("a charge begins source={source}");
        eventually(&line, || (self.log.text().matches(&line).count() >= count).then_some(())).await;
    }

    /// Sends the first charge with `tok_slow`, and returns once its handler has begun: the connection that waits for
    /// it.
    pub async fn charging_slowly(&self, call: &Call) -> Connection {
        let mut connection = Connection::http1(self.address).await.expect("the server listens");
        tokio::select! {
            answer = connection.send(call) => panic!("answered too early: {answer:?}"),
            () = self.charge_begun("tok_slow", 1) => {}
        }
        connection
    }

    /// Waits until the process has ended by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the server ends", || self.child.0.try_wait().expect("its own child")).await
    }

    /// Asks it to stop, with SIGTERM.
    pub fn terminate(&self) {
        signal(self.id(), "TERM");
    }

    /// Stops it and waits for its end.
    pub async fn stop(mut self) {
        self.terminate();
        assert_eq!(self.exit().await.code(), Some(0), "{}", self.log.text());
    }

    /// SIGKILL: nothing is finished, nothing is tidied up.
    pub fn kill(&mut self) {
        let ended = self.child.0.try_wait().expect("its own child");
        assert!(ended.is_none(), "it had ended by itself: {ended:?}, {}", self.log.text());
        self.child.kill();
    }

    pub fn id(&self) -> u32 {
        self.child.0.id()
    }
}

/// A request, to be sent as often as needed.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Call {
    pub fn get(path: &str) -> Self {
        Self { method: Method::GET, path: path.to_owned(), headers: Vec::new(), body: String::new() }
    }

    pub fn post(path: &str, body: &str) -> Self {
        let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        Self { method: Method::POST, path: path.to_owned(), headers, body: body.to_owned() }
    }

    /// A charge of 10 euros.
    pub fn charge(key: &str, source: &str) -> Self {
        Self::post("/v1/charges", &format!("amount=1000&currency=eur&source={source}")).header("idempotency-key", key)
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(held, _)| *held != name);
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A client's connection. Closed when dropped, whatever is under way.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    pub async fn http1(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TokioIo::new(TcpStream::connect(address).await?);
        let (sender, connection) = http1::handshake(stream).await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender: Sender::One(sender), driver })
    }

    /// With prior knowledge.
    pub async fn http2(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TokioIo::new(TcpStream::connect(address).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender: Sender::Two(sender), driver })
    }

    /// Sends a request and reads its answer to the end.
    pub async fn send(&mut self, call: &Call) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(call.method.clone());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let body = Full::from(call.body.clone());
        let response = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request.uri(&call.path).header("host", HOST).body(body)?).await?
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request.uri(format!("http://{HOST}{}", call.path)).body(body)?).await?
            }
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
