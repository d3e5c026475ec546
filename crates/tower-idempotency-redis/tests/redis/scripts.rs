//! Scripts that are forgotten, or that wait for another one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testkit::process::until;
use tower_idempotency_shared::{Backend as _, BackendError, Clocks, Kind, Row, Write};

use crate::lab::{Lab, claim, complete, id, is_done, own_server, token};

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

/// A claim and an end in two scripts, of which the server knows one, would both be sent again, and the first be done.
#[tokio::test]
async fn trap_133_a_put_is_one_script_also_with_claims_and_ends() {
    let Some(server) = own_server("that a put is one script", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    for (number, flushes) in [(0, false), (10, true)] {
        let running = claim(id(number));
        lab.put(&running).await.unwrap();
        if flushes {
            server.say("SCRIPT FLUSH");
        }
        server.say("CONFIG RESETSTAT");
        let writes = [complete(running.id, running.token), claim(id(number + 1))];
        let rows = lab.backend.put(Clocks::default(), &writes).await.unwrap().rows;
        assert!(rows.iter().zip(&writes).all(|(row, write)| is_done(row.as_ref(), write)), "{rows:?}");
        let stats = server.say("INFO commandstats");
        let calls = |name: &str| stats.contains(&format!("cmdstat_{name}:calls=1,"));
        assert!(calls("evalsha") && calls("eval") == flushes, "{stats}");
    }
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

/// Another program has made a key of that name, a later release has written the row, or a hand has edited it. Nothing
/// is written over it, it is named, and other rows are read and written.
#[tokio::test]
async fn a_key_that_is_no_row_of_this_release_is_named_and_left_alone() {
    let Some(server) = own_server("what a foreign key does", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let edits: [&[&str]; 7] = [
        &["DEL {}", "SET {} foreign"],
        &["DEL {}", "SADD {} foreign"],
        &["SETRANGE {} 0 2"],
        &["SETRANGE {} 17 x"],
        &["SETRANGE {} 17 99999999999999999999"],
        &["SETRANGE {} 136 x"],
        &["SETRANGE {} 136 !"],
    ];
    for (number, edit) in (0..).zip(edits) {
        let at = edit.join(", ");
        let (edited, other) = (claim(id(number)), claim(id(1_000 + number)));
        lab.put(&edited).await.unwrap();
        let name = lab.name(edited.id);
        for command in edit {
            let said = server.say(&command.replace("{}", &name));
            assert!(said.starts_with(':') || said.starts_with("+OK"), "{said}");
        }
        let is_odd = |row: &Row| (row.id, row.kind) == (edited.id, Kind::Other(0));
        let before = server.say(&format!("DUMP {name}"));
        // Also with the row's own token, unless its expiry alone was edited.
        let tokens = [token(), if at.contains(" 136 ") { token() } else { edited.token }];
        for write in tokens.map(|token| complete(edited.id, token)).into_iter().chain([claim(edited.id)]) {
            let rows = lab.backend.put(Clocks::default(), &[write, other.clone()]).await.unwrap().rows;
            assert!(rows[0].as_ref().is_some_and(is_odd) && is_done(rows[1].as_ref(), &other), "{at}: {rows:?}");
        }
        assert!(lab.get(edited.id).await.unwrap().as_ref().is_some_and(is_odd), "{at}");
        let scanned = lab.backend.scan(Clocks::default(), None, 1_000).await.unwrap().rows;
        assert_eq!(scanned.iter().filter(|row| is_odd(row)).count(), 1, "{at}: {scanned:?}");
        assert_eq!(server.say(&format!("DUMP {name}")), before, "{at}");
        server.say(&format!("DEL {name}"));
    }
}

/// A session that can't be read may be that of a process that lives.
#[tokio::test]
async fn a_session_that_can_t_be_read_is_a_session() {
    let Some(server) = own_server("what a session does that can't be read", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    for (number, edit) in ["SETRANGE {} 0 2", "SETRANGE {} 17 x", "SETRANGE {} 37 ?"].iter().enumerate() {
        let session = Write { kind: Kind::Session, ..claim(id(number as u64)) };
        lab.put(&session).await.unwrap();
        server.say(&edit.replace("{}", &lab.name(session.id)));
        let sessions = lab.backend.sessions(Clocks::default()).await.unwrap().rows;
        assert!(sessions.iter().any(|row| (row.id, row.kind) == (session.id, Kind::Session)), "{edit}: {sessions:?}");
        // By its id it is a row that can't be read, which a store takes for a session that is never over.
        assert_eq!(lab.get(session.id).await.unwrap().map(|row| row.kind), Some(Kind::Other(0)), "{edit}");
    }
}

/// Nothing says when it began, so a list could not go on after it.
#[tokio::test]
async fn an_open_row_of_another_form_ends_no_list_and_begins_none_anew() {
    let Some(server) = own_server("that lists end", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    for number in 1..4 {
        lab.put(&claim(id(number))).await.unwrap();
    }
    let listed = async || lab.backend.list(Clocks::default(), &[], None, 1_000).await.unwrap().rows;
    let last = listed().await.pop().unwrap();
    server.say(&format!("SETRANGE {} 0 2", lab.name(last.id)));
    let left = listed().await;
    assert_eq!(left.len(), 2, "{left:?}");
    let place = left.last().map(|row| (row.began, row.id));
    assert!(lab.backend.list(Clocks::default(), &[], place, 1_000).await.unwrap().rows.is_empty());
}
