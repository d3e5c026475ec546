//! The second evening: servers die under load and leave some 300 operations of two routes, of which about a third has
//! taken effect. The ledgers decide, as "Settling many" in the guide has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use testkit::payment_server::{Server, Setup};
use testkit::postgres::shared_server;
use testkit::process::until;
use testkit::skipped;
use testkit::{Call, Connection};
use tokio::process::Command;

/// How many charges are made before, to be refunded. Each takes six refunds.
const BASE: usize = 400;
/// How many charges end as unknown, once they are made.
const UNKNOWN: usize = 90;
/// How many are under way when the servers die, and are not made yet.
const SLOW: usize = 140;
/// How many refunds are left interrupted at least, and how many are sent at once.
const REFUNDS: usize = 70;
const AT_ONCE: usize = 24;

/// Servers that die together. Each has a ledger of its own.
struct Shop {
    setups: Vec<Setup>,
    servers: Vec<Arc<Server>>,
    _directories: Vec<TempDir>,
}

/// A request that was sent to one of the servers.
#[derive(Clone)]
struct Sent {
    at: usize,
    call: Call,
}

impl Shop {
    fn open(count: usize, arguments: Option<&str>) -> Self {
        let directories: Vec<_> = (0..count).map(|_| tempdir().unwrap()).collect();
        let setup = |directory| match arguments {
            Some(arguments) => Setup::new(directory).with(arguments),
            None => Setup::new(directory),
        };
        let setups: Vec<_> = directories.iter().map(setup).collect();
        let servers = setups.iter().map(|setup| Arc::new(setup.start())).collect();
        Self { setups, servers, _directories: directories }
    }

    async fn send(&self, Sent { at, call }: &Sent) -> testkit::Answer {
        self.servers[*at].send_until_taken(call).await
    }

    /// Kills all servers, whatever they do, and starts them again.
    async fn die(&mut self) {
        for server in std::mem::take(&mut self.servers) {
            let mut server = Arc::into_inner(server).expect("no request is under way");
            server.kill();
        }
        self.servers = self.setups.iter().map(|setup| Arc::new(setup.start())).collect();
    }

    /// The interrupted operations, as the API lists them to the operator of one server.
    async fn interrupted(&self) -> Vec<Value> {
        listed(&self.servers[0], "interrupted").await
    }

    /// Whether each server sees that the run of no operation goes on. Each judges by the time for which it has itself
    /// seen no renewal, and changes nothing before.
    async fn is_over(&self) -> bool {
        let running = self.servers.iter().map(async |server| listed(server, "running").await.len());
        join_all(running).await.iter().all(|count| *count == 0)
    }
}

async fn listed(server: &Server, state: &str) -> Vec<Value> {
    let path = format!("/admin/api/operations?state={state}&limit=1000");
    server.send_until_taken(&Call::operator(&path)).await.json()["operations"].as_array().unwrap().clone()
}

/// Sends these calls at once, each on a connection of its own, until the servers die.
fn under_way(shop: &Shop, calls: &[Sent]) -> Vec<tokio::task::JoinHandle<()>> {
    let send = |sent: &Sent| {
        let (address, call) = (shop.servers[sent.at].address, sent.call.clone());
        tokio::spawn(async move {
            let Ok(mut connection) = Connection::http1(address).await else { return };
            // The server dies before its answer.
            let _ = connection.send(&call).await;
        })
    };
    calls.iter().map(send).collect()
}

/// Leaves the operations, and returns all requests with a key that were sent.
async fn leave(shop: &mut Shop) -> Vec<Sent> {
    let servers = shop.servers.len();
    let mut sent = Vec::new();
    let charge = |number: usize, kind: &str, source: &str| Sent {
        at: number % servers,
        call: Call::charge_of(&format!("{kind}-{number}"), source),
    };
    let mut made = vec![Vec::new(); servers];
    for number in 0..BASE {
        let sent = charge(number, "base", "tok_visa");
        let answer = shop.send(&sent).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        made[sent.at].push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    let (made, next) = (Arc::new(made), Arc::new(AtomicUsize::new(0)));
    let unknown: Vec<_> = (0..UNKNOWN).map(|number| charge(number, "unknown", "tok_timeout")).collect();
    for sent in &unknown {
        assert_eq!(shop.send(sent).await.status, 504);
    }
    let slow: Vec<_> = (0..SLOW).map(|number| charge(number, "slow", "tok_slow")).collect();
    let requests = under_way(shop, &slow);
    for (at, server) in shop.servers.iter().enumerate() {
        server.charge_begun("tok_slow", slow.iter().filter(|sent| sent.at == at).count()).await;
    }
    shop.die().await;
    join_all(requests).await;
    sent.extend(unknown.into_iter().chain(slow));
    for round in 0..20 {
        // Over PostgreSQL, those of a server that has died show as running at first.
        let stuck = [shop.interrupted().await, listed(&shop.servers[0], "running").await].concat();
        if stuck.iter().filter(|line| is_refund(line)).count() >= REFUNDS {
            break;
        }
        let answered = Arc::new(AtomicUsize::new(0));
        let lanes = (0..AT_ONCE).map(|lane| {
            let (at, made, next) = (lane % servers, Arc::clone(&made), Arc::clone(&next));
            let (address, answered) = (shop.servers[at].address, Arc::clone(&answered));
            tokio::spawn(async move {
                let mut sent = Vec::new();
                let Ok(mut connection) = Connection::http1(address).await else { return sent };
                loop {
                    let key = format!("refund-{round}-{lane}-{}", sent.len());
                    let id = &made[at][next.fetch_add(1, Ordering::SeqCst) % made[at].len()];
                    let call =
                        Call::post("/v1/refunds", &format!("charge={id}&amount=1")).header("idempotency-key", &key);
                    sent.push(Sent { at, call: call.clone() });
                    if connection.send(&call).await.is_err() {
                        return sent;
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let lanes: Vec<_> = lanes.collect();
        until("some refunds are made", async || answered.load(Ordering::SeqCst) > 2 * AT_ONCE).await;
        shop.die().await;
        for lane in join_all(lanes).await {
            sent.extend(lane.unwrap());
        }
    }
    sent
}

fn is_refund(line: &Value) -> bool {
    line["label"].as_str().unwrap().contains("refunds")
}

/// The commands of the guide that settle by the ledgers: definitions, those for another server, those for the last one.
fn commands() -> [Vec<String>; 3] {
    let page = include_str!("../../../docs/running/operators.md");
    let mut blocks = page.split("```text").filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.contains("?otherwise=release")).expect("the guide has them");
    let mut definitions: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect();
    let defined = definitions.iter().rposition(|line| line.contains("() {")).expect("it defines what it uses") + 1;
    let mut others = definitions.split_off(defined);
    let last = others.iter().position(|line| line.contains("$last")).expect("one is the last");
    let last = others.split_off(last);
    [definitions, others, last]
}

/// What the commands for one server have printed.
struct Said(String);

impl Said {
    /// Whether nothing was in flight, and each of at least one change is made.
    fn is_made(&self) -> bool {
        let is_calm = self.0.lines().next().is_some_and(|running| running.contains(r#""operations":[]"#));
        is_calm && self.counted(r#""result":"done""#) > 0 && self.0.matches(r#""result":"#).count() == 1
    }

    /// Returns the number that `uniq -c` has put before this text.
    fn counted(&self, what: &str) -> usize {
        let counts = self.0.lines().filter_map(|line| line.trim().split_once(' '));
        counts.filter(|(_, named)| *named == what).map(|(count, _)| count.parse::<usize>().unwrap()).sum()
    }
}

/// Settles all of them by the ledgers, with the commands of the guide, and returns how many got an answer.
async fn settle(shop: &Shop) -> usize {
    let [mut definitions, others, last] = commands();
    let [one, of_last] = [shop.servers.first(), shop.servers.last()].map(|server| server.expect("it runs").address);
    definitions[0] = format!("one=http://{one}/admin last=http://{of_last}/admin");
    let directory = tempdir().unwrap();
    let run = async |commands: &[String]| {
        let script = [&definitions[..], commands].concat().join("\n");
        let output = Command::new("bash").args(["-c", &script]).current_dir(&directory).output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
        Said(said)
    };
    let answered = AtomicUsize::new(0);
    if shop.servers.len() > 1 {
        // A server that had to start over with watching the other sessions, as on a busy machine, counts their runs as
        // under way: those changes are stale.
        until("the answers of the other ledger are made", async || {
            let said = run(&others).await;
            answered.fetch_add(said.counted(r#""result":"done""#), Ordering::SeqCst);
            said.is_made()
        })
        .await;
    }
    let of_last = AtomicUsize::new(0);
    until("all are settled", async || {
        let said = run(&last).await;
        // What is stale is listed again.
        of_last.fetch_max(said.counted(r#""action":"answer""#), Ordering::SeqCst);
        shop.interrupted().await.is_empty()
    })
    .await;
    answered.into_inner() + of_last.into_inner()
}

/// Each key that was sent is one charge or one refund, after all clients have come back.
async fn passes(mut shop: Shop) {
    let sent = leave(&mut shop).await;
    let servers = shop.servers.len();
    // Over PostgreSQL, a server that has died shows as such after its lease.
    until("all show as interrupted", async || shop.is_over().await).await;
    let listed = shop.interrupted().await;
    let (stuck, refunds) = (listed.len(), listed.iter().filter(|line| is_refund(line)).count());
    let answered = settle(&shop).await;
    println!("{stuck} operations, {refunds} of them refunds, over {servers} servers: {answered} had taken effect");
    assert!(shop.interrupted().await.is_empty());
    assert!(stuck >= UNKNOWN + SLOW + REFUNDS && refunds >= REFUNDS, "{stuck}, {refunds}");
    assert!(answered >= UNKNOWN && answered < stuck - SLOW + 1, "{answered} of {stuck}");
    let mut charges = vec![BASE.div_ceil(servers); servers];
    let mut refunded = 0;
    let retries = stream::iter(&sent).map(async |sent| shop.send(sent).await);
    for (answer, Sent { at, call }) in retries.buffered(50).collect::<Vec<_>>().await.iter().zip(&sent) {
        assert_eq!(answer.status, 200, "{}", answer.text());
        if call.path == "/v1/refunds" {
            refunded += 1;
        } else {
            charges[*at] += 1;
        }
    }
    let mut found = 0;
    for (server, expected) in shop.servers.iter().zip(charges) {
        let list = server.charges().await;
        assert_eq!(list.len(), expected, "each charge is made once");
        found += list.iter().map(|charge| charge["amount_refunded"].as_u64().unwrap()).sum::<u64>();
    }
    assert_eq!(found, refunded, "each refund is made once");
}

/// Whether the guide's commands can be run here.
async fn has_curl(promise: &str) -> bool {
    let has = Command::new("curl").arg("--version").output().await.is_ok();
    if !has {
        skipped(promise, "curl is not installed");
    }
    has
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_operations_over_sled_are_settled_by_the_ledger() {
    if !has_curl("a second evening over sled").await {
        return;
    }
    passes(Shop::open(1, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_operations_of_two_servers_over_postgresql_are_settled_by_both_ledgers() {
    let promise = "a second evening over PostgreSQL";
    if !has_curl(promise).await {
        return;
    }
    let Some(database) = shared_server(promise) else { return };
    let arguments = format!("--store {} --namespace second-evening --lease 12", database.url());
    passes(Shop::open(2, Some(&arguments))).await;
}
