//! Child processes: what they write, and how they end.

use std::io::Read;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The interval of a poll; `GIVE_UP` is its bound.
pub(crate) const LOOK: Duration = Duration::from_millis(10);
pub(crate) const GIVE_UP: Duration = Duration::from_secs(60);

/// A process, killed when dropped.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
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

/// Waits for the child's end. `None` if it did not end within `bound`; it is killed then.
pub fn ended(child: &mut Child, bound: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("its own child") {
            return Some(status);
        }
        if began.elapsed() > bound {
            child.kill().expect("its own child");
            child.wait().expect("its own child");
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// Runs a child to its end, and returns its status, what it has written to its standard output, and to its standard
/// error, which are piped. The status is `None` if it did not end within `bound`; it is killed then.
pub fn finished(mut child: Child, bound: Duration) -> (Option<ExitStatus>, String, String) {
    let stdout = read(child.stdout.take().expect("it is piped"));
    let stderr = read(child.stderr.take().expect("it is piped"));
    let status = ended(&mut child, bound);
    (status, text(stdout), text(stderr))
}

/// Reads on, so that the child never waits for a full pipe.
fn read(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until then is what can be shown.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn text(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().expect("reading does not panic")).into_owned()
}

/// The output of a process so far.
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
pub(crate) fn drain(mut pipe: impl Read + Send + 'static) -> Output {
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

/// Waits until something has come about, which is looked at again and again.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < GIVE_UP, "it did not come about: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Sends a process a signal, through the shell's own `kill`: a small system has no program of that name.
pub fn signal(process: u32, name: &str) {
    let kill = format!(r#"kill -{name} "$0""#);
    let status = Command::new("sh").args(["-c", &kill, &process.to_string()]).status();
    assert!(status.expect("there is a shell").success());
}

/// The letter for what a process does, as in proc(5): `T` if it is stopped. `None`: it has ended.
pub(crate) fn state(process: u32) -> Option<char> {
    status(process, "State:")?.chars().next()
}

/// The bytes that a process has in memory: now by `VmRSS:`, at most so far by `VmHWM:`.
pub fn memory(process: u32, which: &str) -> u64 {
    let kibibytes = status(process, which).expect("the process is there");
    kibibytes.trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Returns a value that the system reports of a process under this name.
fn status(process: u32, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}
