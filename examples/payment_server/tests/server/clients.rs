//! The programs of the page for clients keep their word over a network that loses answers, and the server shows the
//! page.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::tempdir;
use testkit::payment_server::{Server, Setup};
use testkit::proxy::{End, Fate, Pass, Proxy, Way};
use testkit::skipped;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

const PAGE: &str = include_str!("../../../../docs/clients.md");

/// A program of the page: the name of its language in the page, and what runs it.
#[derive(Clone, Copy)]
struct Program {
    language: &'static str,
    file: &'static str,
    interpreter: &'static str,
}

const CURL: Program = Program { language: "bash", file: "client.sh", interpreter: "bash" };
const JAVASCRIPT: Program = Program { language: "js", file: "client.mjs", interpreter: "node" };
const PYTHON: Program = Program { language: "python", file: "client.py", interpreter: "python3" };

impl Program {
    /// Its text in the page, which has one program in each language.
    fn text(self) -> &'static str {
        let (_, rest) = PAGE.split_once(&format!("\n```{}\n", self.language)).expect("the page has the program");
        rest.split_once("\n```\n").expect("it ends").0
    }

    /// Starts it in a directory, where it keeps its key, with its text as `change` says. `None`: it can't run here.
    fn start(self, directory: &Path, api: &Proxy, change: [&str; 2]) -> Option<tokio::process::Child> {
        let text = self.text();
        assert!(text.contains(change[0]), "{}", change[0]);
        std::fs::write(directory.join(self.file), text.replace(change[0], change[1])).unwrap();
        let mut command = Command::new(self.interpreter);
        command.arg(self.file).current_dir(directory).env("API", format!("http://{}", api.address()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        match command.spawn() {
            Ok(child) => Some(child),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                skipped("the page's programs charge once", &format!("{} is not installed", self.interpreter));
                None
            }
            Err(error) => panic!("{}: {error}", self.interpreter),
        }
    }

    async fn run(self, directory: &Path, api: &Proxy, change: [&str; 2]) -> Option<Output> {
        Some(self.start(directory, api, change)?.wait_with_output().await.unwrap())
    }
}

/// What becomes of a connection: the first one breaks when the answer comes.
struct FirstAnswerLost {
    is_first: bool,
}

impl Fate for FirstAnswerLost {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        let is_lost = self.is_first && way == Way::Response && !bytes.is_empty();
        if is_lost { Pass::Cut(0, End::Rst) } else { Pass::On }
    }
}

/// A way to the server that loses the first answer, and the number of connections that have taken it.
pub(crate) async fn losing_the_first_answer(server: &Server) -> (Proxy, Arc<AtomicUsize>) {
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    let fate = move |number| {
        counted.fetch_add(1, Ordering::SeqCst);
        Some(FirstAnswerLost { is_first: number == 0 })
    };
    (Proxy::to(server.address, fate).await, connections)
}

const UNCHANGED: [&str; 2] = ["tok_visa", "tok_visa"];

async fn charges_once_although_the_first_answer_is_lost(program: Program) {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let (proxy, connections) = losing_the_first_answer(&server).await;
    let Some(output) = program.run(directory.path(), &proxy, UNCHANGED).await else { return };
    assert!(output.status.success(), "{output:?}");
    let charges = server.charges().await;
    assert_eq!(charges.len(), 1, "{charges:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(charges[0]["id"].as_str().unwrap()), "{said}");
    assert!(connections.load(Ordering::SeqCst) >= 2, "no answer was lost");

    // It is started again, and finds its key.
    let again = program.run(directory.path(), &proxy, UNCHANGED).await.unwrap();
    assert_eq!((again.status.code(), String::from_utf8(again.stdout).unwrap()), (Some(0), said));
    assert_eq!(server.charges().await.len(), 1);

    // A rejection that says so is final: there is no second attempt.
    let before = connections.load(Ordering::SeqCst);
    let other = program.run(directory.path(), &proxy, ["1000", "2000"]).await.unwrap();
    assert!(!other.status.success() && String::from_utf8(other.stdout).unwrap().contains("key-reused"));
    assert_eq!((connections.load(Ordering::SeqCst) - before, server.charges().await.len()), (1, 1));
}

async fn waits_for_its_run_after_the_connection_broke(program: Program) {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).with("--on-in-flight reject").start();
    let proxy = Proxy::to(server.address, |_| Some(())).await;
    let Some(child) = program.start(directory.path(), &proxy, ["tok_visa", "tok_slow"]) else { return };
    server.charge_begun("tok_slow", 1).await;
    proxy.cut_all();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let charges = server.charges().await;
    assert_eq!(charges.len(), 1, "{charges:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains(charges[0]["id"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_s_program_in_curl_charges_once_although_the_first_answer_is_lost() {
    charges_once_although_the_first_answer_is_lost(CURL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_s_program_in_javascript_charges_once_although_the_first_answer_is_lost() {
    charges_once_although_the_first_answer_is_lost(JAVASCRIPT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_s_program_in_python_charges_once_although_the_first_answer_is_lost() {
    charges_once_although_the_first_answer_is_lost(PYTHON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_s_program_in_curl_waits_for_its_run_after_the_connection_broke() {
    waits_for_its_run_after_the_connection_broke(CURL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_s_program_in_javascript_waits_for_its_run_after_the_connection_broke() {
    waits_for_its_run_after_the_connection_broke(JAVASCRIPT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_s_program_in_python_waits_for_its_run_after_the_connection_broke() {
    waits_for_its_run_after_the_connection_broke(PYTHON).await;
}

/// What a program makes of an answer: whether it calls it a success, and how many requests it has sent.
async fn ends_with(program: Program, answer: &'static str) -> Option<(bool, usize)> {
    let directory = tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sent = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&sent);
    let service = tokio::spawn(async move {
        // Once the answer is written, they are half closed: a close before the whole request has come is a reset.
        let mut answered = Vec::new();
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            if matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
                counted.fetch_add(1, Ordering::SeqCst);
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                answered.push(stream);
            }
        }
    });
    let proxy = Proxy::to(address, |_| Some(())).await;
    let output = program.run(directory.path(), &proxy, UNCHANGED).await?;
    service.abort();
    Some((output.status.success(), sent.load(Ordering::SeqCst)))
}

// Seeded fault: the status decides alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_s_programs_take_no_answer_for_a_success_that_is_not_the_operation_s_own() {
    for program in [CURL, JAVASCRIPT, PYTHON] {
        for (answer, expected) in [
            ("HTTP/1.0 200 OK\r\n\r\ndone", true),
            ("HTTP/1.0 200 OK\r\nIdempotency-Effect: unknown;retry=?0\r\n\r\n{\"id\":", false),
            ("HTTP/1.0 402 Declined\r\n\r\nno", false),
        ] {
            let Some(found) = ends_with(program, answer).await else { break };
            assert_eq!(found, (expected, 1), "{} {answer}", program.file);
        }
    }
}

// Seeded fault: the program follows it.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_s_programs_follow_no_redirect() {
    for program in [CURL, JAVASCRIPT, PYTHON] {
        for status in [307, 308] {
            let answer =
                format!("HTTP/1.0 {status} Elsewhere\r\nlocation: /elsewhere\r\nidempotency-effect: none\r\n\r\n");
            let Some(found) = ends_with(program, answer.leak()).await else { break };
            assert_eq!(found, (false, 1), "{} {status}", program.file);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_shows_the_page_for_clients_and_it_loads_nothing() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let page = server.get("/docs/clients").await;
    // A browser shows such a text as it is.
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert_eq!(page.text(), PAGE);
}
