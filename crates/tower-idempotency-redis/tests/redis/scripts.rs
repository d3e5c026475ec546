//! Scripts that are forgotten, or that wait for another one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testkit::process::until;
use tower_idempotency_shared::{Backend as _, BackendError, Clocks, Kind, Row, Token, Write};

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
    let (running, new) = (claim(id(1)), claim(id(2)));
    lab.put(&running).await.unwrap();
    for flushes in [false, true] {
        if flushes {
            server.say("SCRIPT FLUSH");
        }
        server.say("CONFIG RESETSTAT");
        let writes = [complete(id(1), running.token), new.clone()];
        let rows = lab.backend.put(Clocks::default(), &writes).await.unwrap().rows;
        assert!(rows.iter().zip(&writes).all(|(row, write)| is_done(row.as_ref(), write) || flushes));
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
    let mut foreign = 0..;
    let edits = [
        "DEL {}",
        "SETRANGE {} 0 2",
        "SETRANGE {} 17 x",
        "SETRANGE {} 17 99999999999999999999",
        "SETRANGE {} 136 x",
        "SETRANGE {} 136 !",
    ];
    for (edit, then) in
        edits.into_iter().flat_map(|edit| ["SET {} foreign", "SADD {} foreign", ""].map(|then| (edit, then)))
    {
        // A key is edited, or made by another program.
        if (edit == "DEL {}") == then.is_empty() {
            continue;
        }
        let at = format!("{edit}, {then}");
        let number = foreign.next().unwrap();
        let (edited, other) = (claim(id(number)), claim(id(1_000 + number)));
        lab.put(&edited).await.unwrap();
        let name = lab.name(edited.id);
        for command in [edit, then].iter().filter(|command| !command.is_empty()) {
            let said = server.say(&command.replace("{}", &name));
            assert!(said.starts_with(':') || said.starts_with("+OK"), "{said}");
        }
        let is_odd = |row: &Row| (row.id, row.kind, row.token) == (edited.id, Kind::Other(0), Token([0; 16]));
        let before = server.say(&format!("DUMP {name}"));
        // With the token that was shown, or none, or, where the form is another one, that of the row.
        let tokens = [Token([0; 16]), if edit.contains(" 0 2") { edited.token } else { token() }];
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
    let session = Write { kind: Kind::Session, ..claim(id(1)) };
    lab.put(&session).await.unwrap();
    server.say(&format!("SETRANGE {} 17 x", lab.name(session.id)));
    let sessions = lab.backend.sessions(Clocks::default()).await.unwrap().rows;
    assert_eq!(sessions.iter().map(|row| (row.id, row.kind)).collect::<Vec<_>>(), [(id(1), Kind::Session)]);
}
