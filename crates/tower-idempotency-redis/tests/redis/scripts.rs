//! Scripts that are forgotten, or that wait for another one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testkit::process::until;
use tower_idempotency_shared::{Backend as _, BackendError};

use crate::lab::{Lab, claim, id, is_done, own_server};

#[tokio::test]
async fn calls_that_wait_for_an_answer_are_counted_as_connections() {
    let Some(server) = own_server("that connections are counted", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let in_use = || lab.backend.gauges().connections;
    assert_eq!(in_use(), Some(0));
    server.pause();
    tokio::select! {
        answers = async { tokio::join!(lab.get(id(1)), lab.get(id(2))) } => panic!("answered too early: {answers:?}"),
        () = until("two calls wait", async || in_use() == Some(2)) => {}
    }
    server.resume();
    lab.get(id(1)).await.unwrap();
    assert_eq!(in_use(), Some(0));
}

#[tokio::test]
async fn a_server_that_has_forgotten_the_scripts_gets_them_again() {
    let Some(server) = own_server("that scripts are sent again", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    server.say("SCRIPT FLUSH");
    let write = claim(id(1));
    assert!(is_done(lab.put(&write).await.unwrap().as_ref(), &write));
    server.say("SCRIPT FLUSH");
    assert!(is_done(lab.get(id(1)).await.unwrap().as_ref(), &write));
}

#[tokio::test]
async fn a_write_that_meets_a_script_without_end_is_not_done() {
    let Some(server) = own_server("what a busy server does", &["lua-time-limit 20"]) else { return };
    let lab = Lab::new(&server.url()).await;
    let mut endless = TcpStream::connect(server.address()).unwrap();
    endless.write_all(b"EVAL \"while true do end\" 0\r\n").unwrap();
    until("the server is busy", async || server.say("PING").starts_with("-BUSY")).await;
    let write = claim(id(1));
    let busy = lab.put(&write).await;
    assert!(matches!(busy, Err(BackendError::Busy(_))), "{busy:?}");
    assert!(server.say("SCRIPT KILL").starts_with("+OK"));
    endless.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = [0; 4];
    endless.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"-ERR", "it was killed");
    assert_eq!(lab.get(id(1)).await.unwrap(), None);
    assert!(is_done(lab.put(&write).await.unwrap().as_ref(), &write));
}

/// Another program has made a key of that name, or a later release the row. Nothing is written over it, and other rows
/// are read and written.
#[tokio::test]
async fn a_key_that_is_no_row_is_left_alone() {
    let Some(server) = own_server("what a foreign key does", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let name = format!("ti:{{{}}}:r:{}", lab.namespace, "\\x07".repeat(32));
    let foreign = tower_idempotency::RecordId::from_bytes([7; 32]);
    assert!(server.say(&format!("SET \"{name}\" foreign")).starts_with("+OK"));
    let refused = lab.put(&claim(foreign)).await;
    assert!(matches!(refused, Err(BackendError::Busy(_))), "{refused:?}");
    let shown = lab.get(foreign).await;
    assert!(matches!(shown, Err(BackendError::Busy(_))), "{shown:?}");
    let write = claim(id(1));
    assert!(is_done(lab.put(&write).await.unwrap().as_ref(), &write));
    server.say(&format!("DEL \"{name}\""));
    assert!(server.say(&format!("SADD \"{name}\" foreign")).starts_with(":1"));
    let refused = lab.put(&claim(foreign)).await;
    assert!(matches!(refused, Err(BackendError::Uncertain(_))), "{refused:?}");
}
