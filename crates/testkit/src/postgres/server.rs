//! A PostgreSQL server of one's own: in a temporary directory, on a free port, for as long as it is wanted.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::fake_clock::FakeClock;
use super::programs::{User, programs, unprivileged};
use super::template::Template;
use crate::dice::loopback;
use crate::process::state;

/// The interval of a poll; `GIVE_UP` is its bound.
const LOOK: Duration = Duration::from_millis(20);
const GIVE_UP: Duration = Duration::from_secs(120);

/// Runs the server until the standard input ends, which it does when the test's process ends in any way, Ctrl-C
/// included.
const GUARD: &str = r#"
trap '' INT TERM HUP
"$@" & server=$!
echo $server
read -r word
kill -QUIT $server 2>/dev/null
wait $server
[ "$word" = keep ] || rm -rf "$DIRECTORY"
"#;

/// A server. It ends, and its directory goes, when this is dropped or the process ends.
#[derive(Debug)]
pub struct PostgresServer {
    directory: PathBuf,
    programs: PathBuf,
    user: Option<User>,
    address: Ipv4Addr,
    port: u16,
    settings: Vec<String>,
    /// The clock of its processes, if they have one of their own.
    clock: Option<FakeClock>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    guard: Child,
    pid: u32,
}

impl PostgresServer {
    /// A new server. An error says what is missing to start one.
    pub fn start() -> Result<Self, String> {
        Self::with(&[])
    }

    /// The same, with settings such as `synchronous_commit=off`.
    pub fn with(settings: &[&str]) -> Result<Self, String> {
        let mut server = Self::prepared(settings)?;
        server.initialize();
        server.launch_anywhere();
        Ok(server)
    }

    /// The same, with a [clock of its own](Self::set_clock), which is right at first.
    pub fn with_a_clock(settings: &[&str]) -> Result<Self, String> {
        let mut server = Self::prepared(settings)?;
        server.clock = Some(FakeClock::new(&server.directory)?);
        server.initialize();
        server.launch_anywhere();
        Ok(server)
    }

    /// Sets its clock so many seconds ahead of the machine's, or behind it.
    pub fn set_clock(&self, ahead: i64) {
        self.clock.as_ref().expect("it has a clock of its own").set(ahead);
    }

    /// A standby of the server at `primary`, which streams from there. It takes no writes until it is
    /// [promoted](Self::promote).
    pub fn standby_of(primary: SocketAddr) -> Result<Self, String> {
        let mut server = Self::prepared(&[])?;
        server.copy(primary);
        server.launch_anywhere();
        Ok(server)
    }

    /// A server without data.
    fn prepared(settings: &[&str]) -> Result<Self, String> {
        let programs = programs()?;
        let user = unprivileged()?;
        // The guard deletes it: it outlives this process.
        let directory = TempDir::with_prefix("postgres").map_err(|error| error.to_string())?.keep();
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let this =
            Self { directory, programs, user, address: loopback(), port: 0, settings, clock: None, running: None };
        this.give_away(&this.directory).map_err(|error| error.to_string())?;
        Ok(this)
    }

    fn launch_anywhere(&mut self) {
        // Another process may take the port before the server does.
        let started = (0..5).any(|_| {
            self.port = free_port(self.address);
            self.launch()
        });
        assert!(started, "the server does not start: {}", self.log());
    }

    /// Takes a copy of the cluster that this process has made for its first server. All of them have one system
    /// identifier.
    fn initialize(&self) {
        static TEMPLATE: OnceLock<Template> = OnceLock::new();
        let fill = |directory: &Path| {
            self.give_away(directory).expect("it is the server's, as its own is");
            let mut initdb = self.program("initdb");
            initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
            run(initdb.arg("-D").arg(directory.join("data")));
        };
        // With the owner and the rights of each file.
        run(Command::new("cp").arg("-a").arg(TEMPLATE.get_or_init(|| Template::new(fill)).data()).arg(self.data()));
        self.append("pg_hba.conf", "host all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n");
    }

    /// Takes the data of `primary`, which goes on, and becomes its standby at the next start.
    fn copy(&self, primary: SocketAddr) {
        let mut copy = self.program("pg_basebackup");
        copy.args(["-h", &primary.ip().to_string(), "-p", &primary.port().to_string(), "-U", "postgres"]);
        run(copy.args(["--checkpoint=fast", "--no-sync", "-D"]).arg(self.data()));
        // `pg_basebackup` may be newer than the server, and would name parameters that this does not know.
        self.append("standby.signal", "");
        let (host, port) = (primary.ip(), primary.port());
        self.append("postgresql.auto.conf", &format!("primary_conninfo = 'host={host} port={port} user=postgres'\n"));
    }

    /// Appends to a file of the data, which the server's user owns.
    fn append(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).expect("it can be opened");
        file.write_all(text.as_bytes()).expect("it can be written");
        self.give_away(&path).expect("it can be given away");
    }

    /// Makes the server's user the owner.
    fn give_away(&self, path: &Path) -> std::io::Result<()> {
        self.user.map_or(Ok(()), |User { uid, gid }| chown(path, Some(uid), Some(gid)))
    }

    /// Returns whether the server accepts connections now.
    fn launch(&mut self) -> bool {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log")).expect("a log");
        let mut command = self.as_user(Command::new("sh"));
        command.args(["-c", GUARD, "guard"]).env("DIRECTORY", &self.directory);
        command.args(self.clock.iter().flat_map(FakeClock::wrapper));
        command.arg(self.programs.join("postgres")).arg("-D").arg(self.data());
        command.args(["-p", &self.port.to_string(), "-k", ""]);
        command.args(["-c", &format!("listen_addresses={}", self.address)]);
        // A standby looks again soon for a primary that is lost: it is promoted no sooner.
        command.args(["-c", "wal_retrieve_retry_interval=100ms"]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut guard = command.spawn().expect("a shell is there");
        let mut first = String::new();
        let stdout = guard.stdout.take().expect("it is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut first).expect("it is text");
        let pid = first.trim().parse().expect("the guard says the server's id");
        self.running = Some(Running { guard, pid });
        let begin = Instant::now();
        loop {
            if self.is_ready() {
                return true;
            }
            if self.has_ended() {
                self.end_guard();
                return false;
            }
            assert!(begin.elapsed() < GIVE_UP, "the server does not start: {}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    /// Returns whether the server has written to its lock file that it accepts connections.
    fn is_ready(&self) -> bool {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines().map(str::trim);
        // The file of a server that was killed stays.
        let is_its_own = lines.next() == Some(&self.pid().to_string());
        is_its_own && lines.nth(6) == Some("ready")
    }

    /// Returns whether the process is gone, or is dead and waits for its guard.
    fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with('Z'))
    }

    /// Without a password: any user of this machine can connect.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address())
    }

    /// The address of the server, also while it is down.
    pub fn address(&self) -> SocketAddr {
        (self.address, self.port).into()
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").pid
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Ends all its processes at once, as a crash does. What the operating system has is not lost.
    pub fn kill(&mut self) {
        self.pause();
        signal("KILL", &self.processes());
        self.end_guard();
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        signal("INT", &[self.pid()]);
        let begin = Instant::now();
        while !self.has_ended() {
            assert!(begin.elapsed() < GIVE_UP, "the server does not stop: {}", self.log());
            std::thread::sleep(LOOK);
        }
        self.end_guard();
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), on the same port.
    pub fn start_again(&mut self) {
        let begin = Instant::now();
        while !self.launch() {
            assert!(begin.elapsed() < GIVE_UP, "the server does not start: {}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    /// Makes a standby the primary. Returns once it takes writes.
    pub fn promote(&self) {
        run(self.program("pg_ctl").arg("promote").arg("-D").arg(self.data()));
    }

    /// Returns a command that reads SQL from its standard input, a statement a line, and executes it in a single
    /// process, while the server is [stopped](Self::stop). It fails if a statement does. `wrapper` gets the command as
    /// its further arguments.
    pub fn single_process(&self, wrapper: Command) -> Command {
        let mut command = self.as_user(wrapper);
        command.arg(self.programs.join("postgres")).arg("--single").arg("-D").arg(self.data());
        command.args(["-c", "exit_on_error=on", "postgres"]);
        command
    }

    /// Throws its data away after [`kill`](Self::kill), and makes it a standby of the server at `primary`. It listens
    /// where it did.
    pub fn become_standby_of(&mut self, primary: SocketAddr) {
        fs::remove_dir_all(self.data()).expect("it is there");
        self.copy(primary);
        self.start_again();
    }

    /// Stops all its processes where they are.
    pub fn pause(&self) {
        // It must not start a new process meanwhile, and it does until it has taken the signal.
        signal("STOP", &[self.pid()]);
        let begin = Instant::now();
        while !stands_still(self.pid()) {
            assert!(begin.elapsed() < GIVE_UP, "the server does not stop: {}", self.log());
            std::thread::sleep(LOOK);
        }
        // While children end, the list of them may lack others: proc(5). Stopped children don't end.
        let mut stopped = Vec::new();
        loop {
            let found = self.processes();
            if found == stopped {
                return;
            }
            signal("STOP", &found);
            stopped = found;
        }
    }

    /// Lets them go on.
    pub fn resume(&self) {
        signal("CONT", &self.processes());
    }

    /// Itself and its children.
    fn processes(&self) -> Vec<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().map(|child| child.parse().expect("an id is a number"));
        children.chain([pid]).collect()
    }

    /// Ends the guard of a server that has ended, or is to end; the directory stays.
    fn end_guard(&mut self) {
        let Some(Running { mut guard, .. }) = self.running.take() else { return };
        let mut stdin = guard.stdin.take().expect("it is piped");
        // An error: the guard has ended.
        let _ = stdin.write_all(b"keep\n");
        drop(stdin);
        let _ = guard.wait();
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn program(&self, name: &str) -> Command {
        self.as_user(Command::new(self.programs.join(name)))
    }

    fn as_user(&self, mut command: Command) -> Command {
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command.env("LC_ALL", "C").current_dir(&self.directory);
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.resume();
        }
        self.end_guard();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn signal(name: &str, processes: &[u32]) {
    let ids = processes.iter().map(u32::to_string);
    // An error: some of them have ended.
    let _ = Command::new("kill").arg("-s").arg(name).args(ids).stderr(Stdio::null()).status();
}

/// Returns whether a process has stopped, or ended.
fn stands_still(pid: u32) -> bool {
    state(pid).is_none_or(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

/// Runs a program to its end.
fn run(command: &mut Command) {
    let output = command.output().expect("it is in the server's directory");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn free_port(address: Ipv4Addr) -> u16 {
    TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr()).expect("a port is free").port()
}
