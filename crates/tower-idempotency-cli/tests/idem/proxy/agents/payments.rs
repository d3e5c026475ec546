//! Agents pay through a network that swallows, cuts and repeats, while the server is killed.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tempfile::tempdir;
use testkit::dice::free_address;
use testkit::process::{Process, ended};
use tokio::runtime::Handle;

use super::network::faulty;
use super::sdk::{Sdk, Shape};
use crate::program::{self, accepts};

const PAYMENTS: usize = 60;
/// The time without a result after which an agent is taken to wait for ever. Each sends at most 40 times, for 4
/// seconds.
const BOUND: Duration = Duration::from_secs(240);

pub(super) const SHAPES: [Shape; 4] = [
    Shape { body: "json", sessions: "sessions" },
    Shape { body: "stream", sessions: "sessions" },
    Shape { body: "json", sessions: "stateless" },
    Shape { body: "stream", sessions: "stateless" },
];

/// The payments that took place, by what each is for.
fn paid(ledger: &Path) -> HashMap<String, Vec<String>> {
    let mut paid = HashMap::<_, Vec<_>>::new();
    for line in std::fs::read_to_string(ledger).unwrap_or_default().lines() {
        let [note, _amount, payment] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        paid.entry(note.to_owned()).or_default().push(payment.to_owned());
    }
    paid
}

/// The results of an agent, as they come.
struct Agent {
    process: Process,
    lines: mpsc::Receiver<Value>,
}

impl Agent {
    fn new(mut process: Process) -> Self {
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(process.0.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // An error: the test has ended.
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { process, lines }
    }

    /// Returns the next results, or all that are left.
    fn results(&mut self, most: usize) -> Vec<Value> {
        let mut results = Vec::new();
        while results.len() < most {
            match self.lines.recv_timeout(BOUND) {
                Ok(result) => results.push(result),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("an agent waits for ever, after {} results: {results:?}", results.len())
                }
            }
        }
        results
    }

    /// Lets it begin with the second half.
    fn go_on(&mut self) {
        drop(self.process.0.stdin.take());
    }

    fn succeeds(&mut self) {
        let status = ended(&mut self.process.0, BOUND).expect("it ends");
        let mut said = String::new();
        self.process.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(status.success(), "{status}: {said}");
    }
}

/// Starts `idem proxy` in its profile for tools.
pub(super) fn proxy(listen: SocketAddr, service: SocketAddr, directory: &Path) -> Process {
    let store = format!("sled:{}", directory.join("store").display());
    let mut command = program::proxy(listen, free_address(), &format!("http://{service}"), &store);
    Process(command.args(["--one-account", "--profile", "mcp"]).spawn().unwrap())
}

/// Lets an agent pay, and kills the server, and the proxy if there is one, when half is paid. Returns the payments that
/// took place for each.
async fn pay(server: Sdk, client: Sdk, packages: &[OsString; 2], shape: Shape, is_protected: bool) -> Vec<Vec<String>> {
    let directory = tempdir().unwrap();
    let (ledger, [service, listen]) = (directory.path().join("ledger"), [(); 2].map(|()| free_address()));
    let first = if is_protected { listen } else { service };
    let start = || {
        let server = server.server(&packages[0], service, &ledger, shape);
        (server, is_protected.then(|| proxy(listen, service, directory.path())))
    };
    let mut running = start();
    accepts(service).await;
    accepts(first).await;
    let (network, faults) = faulty(first).await;
    let mut agent = Agent::new(client.agent(&packages[1], network.address(), PAYMENTS, shape));

    let how = format!("{server:?} {client:?} {shape:?}");
    let mut results = tokio::task::block_in_place(|| agent.results(PAYMENTS / 2));
    if results.len() < PAYMENTS / 2 {
        agent.succeeds();
    }
    assert_eq!(results.len(), PAYMENTS / 2, "{how}: {results:?}");
    // Both are killed, and started again.
    drop(running);
    running = start();
    accepts(service).await;
    accepts(first).await;
    agent.go_on();
    results.extend(tokio::task::block_in_place(|| {
        let results = agent.results(PAYMENTS);
        agent.succeeds();
        results
    }));
    drop(running);

    let [swallowed, cut, repeated] =
        [&faults.swallowed, &faults.cut, &faults.repeated].map(|count| count.load(Ordering::SeqCst));
    let how = format!("{how}: {swallowed} swallowed, {cut} cut, {repeated} repeated: {results:?}");
    assert!(swallowed > 0 && cut > 0 && repeated > 0, "{how}");
    let paid = paid(&ledger);
    let keys: HashSet<_> = results.iter().map(|result| result["key"].as_str().unwrap()).collect();
    assert_eq!((keys.len(), results.len(), paid.len()), (PAYMENTS, PAYMENTS, PAYMENTS), "{how}");
    if is_protected {
        // A client waits for what was swallowed, and some wait after a cut.
        let failures = results.iter().flat_map(|result| result["failures"].as_array().unwrap());
        assert!(failures.filter(|failure| *failure == "timeout").count() <= swallowed + cut, "{how}");
        for result in &results {
            let (key, payment) = (result["key"].as_str().unwrap(), result["payment"].as_str().unwrap());
            assert_eq!(paid[key], [payment], "{key}: {how}");
        }
    }
    paid.into_values().collect()
}

/// Returns the packages of a server and of a client, if they are there.
fn packages(server: Sdk, client: Sdk) -> Option<[OsString; 2]> {
    let promise = "an agent's payments take place once, through the official SDKs";
    Some([server.package(promise)?, client.package(promise)?])
}

async fn each_is_paid_once(server: Sdk, client: Sdk) {
    let Some(packages) = packages(server, client) else { return };
    // The older client knows sessions alone.
    let is_known = |shape: &Shape| client != Sdk::OlderTypeScript || shape.sessions == "sessions";
    let runtime = &Handle::current();
    // At once: most of the time they wait for answers that were swallowed.
    tokio::task::block_in_place(|| {
        std::thread::scope(|threads| {
            for shape in SHAPES.into_iter().filter(is_known) {
                let packages = &packages;
                threads.spawn(move || runtime.block_on(pay(server, client, packages, shape, true)));
            }
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_python_pays_once_at_a_server_in_python() {
    each_is_paid_once(Sdk::Python, Sdk::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_python_pays_once_at_a_server_in_typescript() {
    each_is_paid_once(Sdk::TypeScript, Sdk::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_typescript_pays_once_at_a_server_in_python() {
    each_is_paid_once(Sdk::Python, Sdk::TypeScript).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_typescript_pays_once_at_a_server_in_typescript() {
    each_is_paid_once(Sdk::TypeScript, Sdk::TypeScript).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_the_older_package_pays_once() {
    each_is_paid_once(Sdk::TypeScript, Sdk::OlderTypeScript).await;
}

/// So that the others show something.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_proxy_agents_pay_twice() {
    for (sdk, shape) in [(Sdk::Python, SHAPES[1]), (Sdk::TypeScript, SHAPES[2])] {
        let Some(packages) = packages(sdk, sdk) else { return };
        let payments = pay(sdk, sdk, &packages, shape, false).await;
        assert!(payments.iter().any(|payments| payments.len() > 1), "{sdk:?}: {payments:?}");
    }
}
