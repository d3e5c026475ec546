//! A Redis or Valkey server of one's own: in a temporary directory, on a free port, for as long as it is wanted.

mod answer;
mod clock;
mod found;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::dice::loopback;
use crate::postgres::FakeClock;
use crate::process::{signal, state};

use found::program;
pub use found::{own_server, server_where, shared_server};

/// The interval of a poll; `GIVE_UP` is its bound.
const LOOK: Duration = Duration::from_millis(10);
const GIVE_UP: Duration = Duration::from_secs(60);

/// Runs the server until the standard input ends, which it does when the test's process ends in any way, Ctrl-C
/// included.
const GUARD: &str = r#"
trap '' INT TERM HUP
"$@" >>"$DIRECTORY/log" 2>&1 & server=$!
echo $server
read -r word
kill -KILL $server 2>/dev/null
wait $server 2>/dev/null
[ "$word" = keep ] || rm -rf "$DIRECTORY"
"#;

/// A server. It ends, and its directory goes, when this is dropped or the process ends.
#[derive(Debug)]
pub struct RedisServer {
    directory: PathBuf,
    program: PathBuf,
    address: Ipv4Addr,
    port: u16,
    settings: Vec<String>,
    /// It is a sentinel, which keeps what it learns in its own file of settings.
    is_sentinel: bool,
    /// The clock of its process, if it has one of its own.
    clock: Option<FakeClock>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    guard: Child,
    pid: u32,
}

impl RedisServer {
    /// A new server, with settings such as `appendonly yes`. It saves nothing by itself. An error says what is missing
    /// to start one.
    pub fn with(settings: &[&str]) -> Result<Self, String> {
        Self::of(program()?, settings)
    }

    /// A sentinel that watches the server at `primary` under the name `main`. It alone decides.
    pub fn sentinel_of(primary: SocketAddr) -> Result<Self, String> {
        Self::sentinel_with(primary, &[])
    }

    /// The same, with further lines in its file of settings.
    pub fn sentinel_with(primary: SocketAddr, lines: &[&str]) -> Result<Self, String> {
        Self::sentinel_voting(primary, 1, lines)
    }

    /// The same, where so many sentinels have to agree that the server is gone.
    pub fn sentinel_voting(primary: SocketAddr, quorum: usize, lines: &[&str]) -> Result<Self, String> {
        let monitor = format!("sentinel monitor main {} {} {quorum}", primary.ip(), primary.port());
        let mut settings = vec![monitor.as_str()];
        settings.extend(lines);
        let mut sentinel = Self::prepared(program()?, &settings)?;
        sentinel.is_sentinel = true;
        sentinel.launch_anywhere();
        Ok(sentinel)
    }

    /// A replica of the server at `primary`. When this returns, it has a copy, and gets what is written from then on.
    pub fn replica_of(primary: SocketAddr, settings: &[&str]) -> Result<Self, String> {
        Self::copy_of(primary, program()?, settings)
    }

    /// A replica of this server, by the same program.
    pub fn replica(&self, settings: &[&str]) -> Self {
        Self::copy_of(self.address(), self.program.clone(), settings).expect("a second server can be started")
    }

    /// Another server by the same program, which knows nothing of this one.
    pub fn another(&self, settings: &[&str]) -> Self {
        Self::of(self.program.clone(), settings).expect("a second server can be started")
    }

    fn copy_of(primary: SocketAddr, program: PathBuf, settings: &[&str]) -> Result<Self, String> {
        let replica = format!("replicaof {} {}", primary.ip(), primary.port());
        let mut all = vec![replica.as_str(), "repl-diskless-load on-empty-db"];
        all.extend(settings);
        let server = Self::of(program, &all)?;
        server.until_it_follows(primary);
        Ok(server)
    }

    /// Makes it a replica of the server at `primary`, without the data it has. When this returns, it has a copy, and
    /// gets what is written from then on.
    pub fn follow(&self, primary: SocketAddr) {
        let answer = self.say(&format!("REPLICAOF {} {}", primary.ip(), primary.port()));
        assert!(answer.starts_with("+OK"), "{answer}");
        self.until_it_follows(primary);
    }

    /// Its link is up and the primary calls it online once it has a copy. But the primary keeps what is written back
    /// until the first sign of the replica, up to a second later. A failover in that second loses all of it.
    fn until_it_follows(&self, primary: SocketAddr) {
        let begin = Instant::now();
        let follows = || {
            // It changes no key, and has to reach the replica.
            ask(primary, "PUBLISH testkit replica")?;
            let [its, own] = [ask(primary, "INFO replication")?, ask(self.address(), "INFO replication")?];
            let (its, has) = (number(&its, "master_repl_offset:"), number(&own, "slave_repl_offset:"));
            std::io::Result::Ok(own.contains("master_link_status:up") && has > 0 && has >= its)
        };
        // An error: one of them does not answer yet.
        while !follows().unwrap_or(false) {
            assert!(begin.elapsed() < GIVE_UP, "the replica does not follow: {}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    fn of(program: PathBuf, settings: &[&str]) -> Result<Self, String> {
        let mut server = Self::prepared(program, settings)?;
        server.launch_anywhere();
        Ok(server)
    }

    /// A server that does not run yet.
    fn prepared(program: PathBuf, settings: &[&str]) -> Result<Self, String> {
        // The guard deletes it: it outlives this process.
        let directory = TempDir::with_prefix("redis").map_err(|error| error.to_string())?.keep();
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let (address, is_sentinel) = (loopback(), false);
        Ok(Self { directory, program, address, port: 0, settings, is_sentinel, clock: None, running: None })
    }

    fn launch_anywhere(&mut self) {
        // Another process may take the port before the server does.
        let started = (0..5).any(|_| {
            self.port = free_port(self.address);
            self.launch()
        });
        assert!(started, "the server does not start: {}", self.log());
    }

    /// Returns whether the server accepts connections now.
    fn launch(&mut self) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard"]).env("DIRECTORY", &self.directory);
        command.args(self.wrapper()).arg(&self.program);
        if self.is_sentinel {
            let file = self.directory.join("sentinel.conf");
            // Others would take it for the address from which it connects.
            let own = format!("sentinel announce-ip {}\n{}", self.address, self.settings.join("\n"));
            fs::write(&file, own).expect("its directory can be written");
            command.arg(file).arg("--sentinel");
        }
        command.args(["--port", &self.port.to_string(), "--bind", &self.address.to_string()]);
        command.args(["--protected-mode", "no", "--dir"]).arg(&self.directory);
        if !self.is_sentinel {
            command.args(["--save", "", "--repl-diskless-sync-delay", "0"]);
            // Others would take it for the address from which it connects.
            let own = self.address.to_string();
            command.args(["--replica-announce-ip", &own, "--cluster-announce-ip", &own]);
        }
        for setting in self.settings.iter().filter(|_| !self.is_sentinel) {
            let (name, value) = setting.split_once(' ').expect("a setting has a name and a value");
            command.arg(format!("--{name}")).args(value.split(' '));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut guard = command.spawn().expect("a shell is there");
        let mut first = String::new();
        let stdout = guard.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut first).expect("it is text");
        let pid = first.trim().parse().expect("the guard says the server's id");
        self.running = Some(Running { guard, pid });
        let begin = Instant::now();
        loop {
            if self.is_ready() {
                return true;
            }
            if state(pid).is_none_or(|state| state == 'Z') {
                self.end_guard();
                return false;
            }
            assert!(begin.elapsed() < GIVE_UP, "the server does not start: {}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    fn is_ready(&self) -> bool {
        // A server with a password asks for it.
        ask(self.address(), "PING").is_ok_and(|answer| answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"))
    }

    /// Sends a command, and returns what the server answers, as it is on the wire.
    pub fn say(&self, command: &str) -> String {
        ask(self.address(), command).expect("the server answers")
    }

    /// Returns whether the server says that it has this role. A sentinel that gives it another one closes connections.
    pub fn is(&self, role: &str) -> bool {
        ask(self.address(), "ROLE").is_ok_and(|answer| answer.contains(role))
    }

    /// Without a password: any user of this machine can connect.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// The address of the server, also while it is down.
    pub fn address(&self) -> SocketAddr {
        (self.address, self.port).into()
    }

    /// The directory in which it keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").pid
    }

    /// Stops the process where it is.
    pub fn pause(&self) {
        signal(self.pid(), "STOP");
        let begin = Instant::now();
        while !state(self.pid()).is_none_or(|state| matches!(state, 'T' | 't' | 'Z')) {
            assert!(begin.elapsed() < GIVE_UP, "the server does not stop");
            std::thread::sleep(LOOK);
        }
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal(self.pid(), "CONT");
    }

    /// Ends it at once, as a crash does. What the operating system has is not lost.
    pub fn kill(&mut self) {
        self.end_guard();
    }

    /// Starts it again after [`kill`](Self::kill), on the same port.
    pub fn start_again(&mut self) {
        let begin = Instant::now();
        while !self.launch() {
            assert!(begin.elapsed() < GIVE_UP, "the server does not start: {}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    /// Ends the server and its guard; the directory stays.
    fn end_guard(&mut self) {
        let Some(Running { mut guard, .. }) = self.running.take() else { return };
        let mut stdin = guard.stdin.take().expect("it is piped");
        // An error: the guard has ended.
        let _ = stdin.write_all(b"keep\n");
        drop(stdin);
        let _ = guard.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.end_guard();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Sends a command, and returns what the server answers, as it is on the wire.
fn ask(server: SocketAddr, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(GIVE_UP))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let answer = answer::read(&mut BufReader::new(stream))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The number of this name in an answer to `INFO`, or 0.
fn number(info: &str, name: &str) -> u64 {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

fn free_port(address: Ipv4Addr) -> u16 {
    TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr()).expect("a port is free").port()
}
