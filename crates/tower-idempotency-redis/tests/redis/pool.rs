//! What becomes of the connections that calls share, once calls have ended otherwise than with their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use testkit::process::until;
use testkit::proxy::{Fate, Pass, Proxy, Way};
use tower_idempotency_redis::{Durability, RedisBackend};
use tower_idempotency_shared::{BackendError, Row};

use crate::lab::{RedisServer, builder, claim, get, id, own_server, pair, put};

/// The calls at a time, each with a connection of its own.
const CALLS: usize = 8;
/// For what is waited for in vain.
const TIMEOUT: Duration = Duration::from_secs(2);

type Answered = Result<Option<Row>, BackendError>;

/// A connection that counts once a call is on it. That of the listener never does.
struct Counted {
    is_used: AtomicBool,
    used: Arc<AtomicUsize>,
}

impl Fate for Counted {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        let is_call = way == Way::Request && bytes.windows(4).any(|word| word == b"EVAL");
        if is_call && !self.is_used.swap(true, Ordering::SeqCst) {
            self.used.fetch_add(1, Ordering::SeqCst);
        }
        Pass::On
    }
}

/// A process with as many connections as calls, and its way to the server.
struct Process {
    backend: RedisBackend,
    way: Proxy,
    /// The number of connections that calls have used so far.
    used: Arc<AtomicUsize>,
}

impl Process {
    async fn at(server: &RedisServer, timeout: Duration) -> Self {
        Self::with(Durability::Memory, server, timeout).await
    }

    /// The process has all of its connections, and no call has one.
    async fn with(durability: Durability, server: &RedisServer, timeout: Duration) -> Self {
        let used = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&used);
        let fate = move |_| Some(Counted { is_used: AtomicBool::new(false), used: Arc::clone(&counted) });
        let way = Proxy::to(server.address(), fate).await;
        let builder = builder(&format!("redis://{}", way.address()), "n").connections(CALLS);
        let builder = builder.response_timeout(timeout).wait_for_connection(timeout).wait_for_replicas(TIMEOUT);
        let backend = builder.durability(durability).unwrap().open().await.unwrap();
        let process = Self { backend, way, used };
        until("all connections are there", async || process.calls().await.iter().all(Result::is_ok)).await;
        process
    }

    /// Makes calls at once. Each has taken its connection before the first one is answered: on one thread, all are
    /// polled once before anything is read.
    async fn calls(&self) -> Vec<Answered> {
        join_all((0..CALLS).map(|_| get(&self.backend, id(1)))).await
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }
}

fn are_nothing(answers: &[Answered]) -> bool {
    answers.iter().all(|answer| matches!(answer, Err(BackendError::Nothing(_))))
}

// Seeded fault: a connection of before goes back to the pool after the first of the calls has dropped all. It is used
// first from then on, and no call drops it any more.
#[tokio::test]
async fn calls_that_find_a_demoted_primary_together_leave_none_of_its_connections_behind() {
    let Some((primary, replica)) = pair("that connections to a demoted primary are left") else { return };
    let process = Process::at(&primary, Duration::from_secs(30)).await;
    replica.say("REPLICAOF NO ONE");
    process.way.lead_to(replica.address());
    primary.say(&format!("REPLICAOF {} {}", replica.address().ip(), replica.address().port()));
    let met = process.calls().await;
    assert!(are_nothing(&met), "each had a connection to the demoted one: {met:?}");
    for _ in 0..2 {
        let then = process.calls().await;
        assert!(then.iter().all(Result::is_ok), "{then:?}");
    }
}

// Seeded fault: the idle connections stay. A machine that is gone would cost each of them its own time limit.
#[tokio::test]
async fn one_call_waits_for_a_machine_that_is_gone_and_the_others_are_refused() {
    let Some(server) = own_server("that a machine which is gone costs one wait", &[]) else { return };
    let process = Process::at(&server, TIMEOUT).await;
    process.way.stall();
    // A read may have a large row as its answer, and waits for much longer.
    let first = put(&process.backend, &claim(id(1))).await;
    assert!(matches!(first, Err(BackendError::Uncertain(_))), "{first:?}");
    // It has no connection, and gets no new one.
    let second = put(&process.backend, &claim(id(1))).await;
    assert!(matches!(second, Err(BackendError::Nothing(_))), "{second:?}");
}

/// What a call meets, which decides what becomes of its own connection, and of the idle ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meets {
    AnAnswer,
    /// An answer that says why nothing was done, on a server which is the primary.
    ARefusal,
    ItsEnd,
    NoAnswerInTime,
    /// A server whose replicas may follow another one by now.
    TooFewReplicas,
    /// A server that is no primary.
    Elsewhere,
}

// Each end of a call, and the connections that are made for those after it. Seeded faults: a refusal drops all of them;
// a call that is late, or whose replicas are short, drops none but its own.
#[tokio::test]
async fn a_connection_is_used_again_if_its_call_was_answered_and_its_server_is_sound() {
    use Meets::{ARefusal, AnAnswer, Elsewhere, ItsEnd, NoAnswerInTime, TooFewReplicas};
    for meets in [AnAnswer, ARefusal, ItsEnd, NoAnswerInTime, TooFewReplicas, Elsewhere] {
        let Some((server, replica)) = pair("which connections are used again") else { return };
        let durability = match meets {
            TooFewReplicas => Durability::Replicas { count: 1, fsync: false },
            _ => Durability::Memory,
        };
        let process = Process::with(durability, &server, TIMEOUT).await;
        let before = process.used();
        let call = || get(&process.backend, id(1));
        let is_so = match meets {
            AnAnswer => call().await.is_ok(),
            ARefusal => {
                server.say("CONFIG SET min-replicas-to-write 2");
                let refused = call().await;
                server.say("CONFIG SET min-replicas-to-write 0");
                are_nothing(&[refused])
            }
            ItsEnd => call().now_or_never().is_none(),
            NoAnswerInTime => {
                server.pause();
                let late = put(&process.backend, &claim(id(1))).await;
                server.resume();
                matches!(late, Err(BackendError::Uncertain(_)))
            }
            TooFewReplicas => {
                replica.pause();
                let short = call().await;
                replica.resume();
                matches!(short, Err(BackendError::Uncertain(_)))
            }
            Elsewhere => {
                process.way.lead_to(replica.address());
                replica.say("REPLICAOF NO ONE");
                server.say(&format!("REPLICAOF {} {}", replica.address().ip(), replica.address().port()));
                are_nothing(&[call().await])
            }
        };
        assert!(is_so, "{meets:?}");
        let after = process.calls().await;
        assert!(after.iter().all(Result::is_ok), "{meets:?}: {after:?}");
        let (keeps_its_own, keeps_the_idle) =
            (matches!(meets, AnAnswer | ARefusal), matches!(meets, AnAnswer | ARefusal | ItsEnd));
        let gone = usize::from(!keeps_its_own) + if keeps_the_idle { 0 } else { CALLS - 1 };
        assert_eq!(process.used() - before, gone, "{meets:?}");
    }
}
