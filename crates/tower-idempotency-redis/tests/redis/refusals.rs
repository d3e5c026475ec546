//! A server that refuses scripts as a whole. Nothing was done then, and a row that is there is never shown as absent.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testkit::process::until;
use tower_idempotency_redis::{Durability, RedisError};
use tower_idempotency_shared::{Backend as _, BackendError, Clocks, Row, Write};

use crate::lab::{Lab, builder, claim, complete, get, id, is_done, own_server, put};

/// A call was refused with this text, and has done nothing.
fn assert_nothing(answer: &Result<Option<Row>, BackendError>, says: &str) {
    let is_so = matches!(answer, Err(error @ BackendError::Nothing(_)) if error.to_string().contains(says));
    assert!(is_so, "{says}: {answer:?}");
}

/// A new claim, the end of a run and a read are refused with this text.
async fn all_is_refused(lab: &Lab, run: &Write, says: &str) {
    for write in [claim(id(1_000)), complete(run.id, run.token)] {
        assert_nothing(&lab.put(&write).await, says);
    }
    assert_nothing(&lab.get(run.id).await, says);
}

/// Nothing of what was refused was done, and now it is.
async fn all_is_done(lab: &Lab, run: &Write) {
    assert!(is_done(lab.get(run.id).await.unwrap().as_ref(), run));
    assert_eq!(lab.get(id(1_000)).await.unwrap(), None);
    for write in [claim(id(1_000)), complete(run.id, run.token)] {
        assert!(is_done(lab.put(&write).await.unwrap().as_ref(), &write));
    }
}

#[tokio::test]
async fn a_server_without_enough_replicas_does_nothing() {
    let Some(server) = own_server("what NOREPLICAS means", &[]) else { return };
    let (lab, run) = (Lab::new(&server.url()).await, claim(id(1)));
    lab.put(&run).await.unwrap();
    server.say("CONFIG SET min-replicas-to-write 1");
    all_is_refused(&lab, &run, "Not enough good replicas").await;
    server.say("CONFIG SET min-replicas-to-write 0");
    all_is_done(&lab, &run).await;
}

#[tokio::test]
async fn a_server_that_can_t_save_its_data_does_nothing() {
    let Some(server) = own_server("what MISCONF means", &[]) else { return };
    let (lab, run) = (Lab::new(&server.url()).await, claim(id(1)));
    lab.put(&run).await.unwrap();
    server.say("CONFIG SET save \"3600 1\"");
    // The file to which it saves is renamed to this name in the end.
    fs::create_dir(server.directory().join("dump.rdb")).unwrap();
    server.say("BGSAVE");
    let has_failed = async || server.say("INFO persistence").contains("rdb_last_bgsave_status:err");
    until("it could not save", has_failed).await;
    all_is_refused(&lab, &run, "unable to persist to disk").await;
    server.say("CONFIG SET stop-writes-on-bgsave-error no");
    all_is_done(&lab, &run).await;
}

#[tokio::test]
async fn a_server_that_is_loading_its_data_shows_no_row_as_absent() {
    let Some(server) = own_server("what LOADING means", &["enable-debug-command yes"]) else { return };
    let (lab, run) = (Lab::new(&server.url()).await, claim(id(1)));
    lab.put(&run).await.unwrap();
    let others: Vec<Write> = (10..210).map(|number| claim(id(number))).collect();
    lab.backend.put(Clocks::default(), &others).await.unwrap();
    // So many microseconds for a key, and a look at connections for so many bytes.
    server.say("CONFIG SET key-load-delay 50000");
    server.say("CONFIG SET loading-process-events-interval-bytes 1024");
    let mut reload = TcpStream::connect(server.address()).unwrap();
    reload.write_all(b"DEBUG RELOAD\r\n").unwrap();
    until("it is loading", async || server.say("PING").starts_with("-LOADING")).await;
    all_is_refused(&lab, &run, "loading the dataset").await;
    server.say("CONFIG SET key-load-delay 0");
    reload.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = [0; 3];
    reload.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK", "it has loaded");
    all_is_done(&lab, &run).await;
}

/// While it loads the file, it says that it has none.
#[tokio::test]
async fn a_server_that_is_loading_its_append_only_file_does_not_count_as_one_without_a_file() {
    let settings = ["appendonly yes", "appendfsync always", "enable-debug-command yes"];
    let Some(server) = own_server("what a load of the append-only file means", &settings) else { return };
    let durable = || builder(&server.url(), "n").durability(Durability::LocalAof).unwrap();
    let (backend, run) = (durable().open().await.unwrap(), claim(id(1)));
    put(&backend, &run).await.unwrap();
    server.say("EVAL \"for i = 1, 30000 do redis.call('SET', i, i) end\" 0");
    // It looks at connections after 1024 commands.
    server.say("CONFIG SET key-load-delay 300");
    let mut load = TcpStream::connect(server.address()).unwrap();
    load.write_all(b"DEBUG LOADAOF\r\n").unwrap();
    until("it is loading", async || server.say("PING").starts_with("-LOADING")).await;
    assert!(server.say("INFO persistence").contains("aof_enabled:0"));
    let opened = durable().open_within(Duration::from_secs(2)).open().await;
    assert!(matches!(opened, Err(RedisError::Away { .. })), "{opened:?}");
    server.say("CLIENT KILL TYPE normal");
    // The next call has a connection that was killed, or a new one.
    for _ in 0..2 {
        let shown = get(&backend, run.id).await;
        assert!(shown.is_err(), "{shown:?}");
    }
    assert_eq!(backend.full(), None);
    assert!(server.say("PING").starts_with("-LOADING"));
    server.say("CONFIG SET key-load-delay 0");
    until("it has loaded", async || server.say("PING").starts_with("+PONG")).await;
    assert!(is_done(get(&backend, run.id).await.unwrap().as_ref(), &run));
    let new = claim(id(2));
    assert!(is_done(put(&backend, &new).await.unwrap().as_ref(), &new));
}

/// INFO says of the file of before that it is there.
#[tokio::test]
async fn trap_137_an_append_only_file_that_was_off_is_none_until_it_is_whole_again() {
    let settings = ["appendonly yes", "appendfsync always"];
    let Some(server) = own_server("what a file means that was off", &settings) else { return };
    let backend = builder(&server.url(), "n").durability(Durability::LocalAof).unwrap().open().await.unwrap();
    server.say("EVAL \"for i = 1, 20 do redis.call('SET', i, i) end\" 0");
    let info = |line: &str| server.say("INFO persistence").contains(line);
    let limit = async || {
        backend.guarantee().await.unwrap();
        backend.full()
    };
    server.say("BGREWRITEAOF");
    until("there is a whole file", async || info("aof_rewrite_in_progress:0") && !info("aof_base_size:0\r")).await;
    assert_eq!(limit().await, None);
    // In microseconds for each of the keys: it takes as long as a machine may stall. No step waits for it.
    server.say("CONFIG SET rdb-key-save-delay 10000000");
    server.say("BGREWRITEAOF");
    assert!(info("aof_rewrite_in_progress:1"));
    assert_eq!(limit().await, None, "the control: the file of before is whole, and goes on");
    // This ends the rewriting at once.
    server.say("CONFIG SET appendonly no");
    assert!(info("aof_rewrite_in_progress:0"));
    assert_eq!(limit().await, Some("durability"));
    server.say("CONFIG SET appendonly yes");
    assert!(info("aof_rewrite_in_progress:1") && info("aof_enabled:1"));
    assert_eq!(limit().await, Some("durability"));
    server.say("CONFIG SET appendonly no");
    server.say("CONFIG SET rdb-key-save-delay 0");
    server.say("CONFIG SET appendonly yes");
    until("the file is whole", async || limit().await.is_none()).await;
    assert!(info("aof_rewrite_in_progress:0"));
}
