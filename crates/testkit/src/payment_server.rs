//! The example payment server as a process of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::process::{GIVE_UP, LOOK, Output, Process, drain, eventually, signal, state};
use crate::{Answer, Call, Connection};

/// Starts servers, one after the other, on one data directory.
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
        let mut child = self.command().spawn().expect("cargo has built the program");
        let log = drain(child.stderr.take().expect("it is piped"));
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Launched { child: Process(child), stdout, log }
    }
}

/// An operation as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub fence: String,
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

/// The program of the package under test: the example server, or that of the laboratories, which is the same.
fn program() -> PathBuf {
    let own = ["CARGO_BIN_EXE_payment_server", "CARGO_BIN_EXE_laboratory_server"];
    own.into_iter().find_map(std::env::var_os).expect("cargo says where the program is").into()
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
        self.send_while(call, |answer| answer.problem() == "in-flight").await
    }

    /// Sends a request over a database until it is no longer in flight. On a busy machine, the database may be late.
    pub async fn send_until_taken(&self, call: &Call) -> Answer {
        self.send_while(call, |answer| answer.status == 503 || answer.problem() == "in-flight").await
    }

    async fn send_while(&self, call: &Call, comes_again: impl Fn(&Answer) -> bool) -> Answer {
        let began = Instant::now();
        loop {
            let answer = self.send(call).await;
            if !comes_again(&answer) {
                return answer;
            }
            assert!(began.elapsed() < GIVE_UP, "{}", answer.text());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The demo account's charges, the newest first.
    pub async fn charges(&self) -> Vec<serde_json::Value> {
        let list = self.get("/v1/charges?limit=1000000").await.json();
        assert_eq!(list["has_more"], false);
        list["data"].as_array().expect("a list").clone()
    }

    /// The operations that were interrupted.
    pub async fn interrupted(&self) -> Vec<Listed> {
        self.interrupted_with("").await
    }

    /// Those of them that this part of the query selects, such as `&status=504`.
    pub async fn interrupted_with(&self, query: &str) -> Vec<Listed> {
        let (mut listed, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/admin/api/operations?state=interrupted&limit=1000{query}{after}");
            let page = self.send(&Call::operator(&path)).await.json();
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let operations = page["operations"].as_array().expect("a list").iter();
            listed.extend(operations.map(|line| Listed { id: text(&line["id"]), fence: text(&line["fence"]) }));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return listed,
            }
        }
    }

    /// Frees the key of an interrupted operation. Says what has become of it: `done`, `stale`.
    pub async fn release(&self, listed: &Listed) -> String {
        self.change(listed, json!({ "action": "release" })).await
    }

    /// Gives retries of an interrupted operation this JSON.
    pub async fn answer(&self, listed: &Listed, body: &str) -> String {
        let answer = json!({ "status": 200, "headers": [["content-type", "application/json"]], "body": body });
        self.change(listed, json!({ "action": "answer", "answer": answer })).await
    }

    async fn change(&self, listed: &Listed, mut change: Value) -> String {
        change["id"] = json!(listed.id);
        change["fence"] = json!(listed.fence);
        let call = Call::operator_post("/admin/api/changes", &json!({ "changes": [change] }));
        let answer = self.send(&call).await;
        let result = answer.json()["results"][0]["result"].as_str().map(str::to_owned);
        result.unwrap_or_else(|| panic!("{change} was not understood: {}", answer.text()))
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

    /// Stops the process where it is, until it is [resumed](Self::resume).
    pub async fn pause(&self) {
        signal(self.id(), "STOP");
        eventually("the server is stopped", || (state(self.id()) == Some('T')).then_some(())).await;
    }

    pub fn resume(&self) {
        signal(self.id(), "CONT");
    }

    pub fn id(&self) -> u32 {
        self.child.0.id()
    }
}
