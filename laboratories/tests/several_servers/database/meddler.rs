//! A third program that changes a Redis server's rows between two calls of the store: the faults of controls.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::fault::Fault;
use super::redis::command;

/// The time between two looks.
const EVERY: Duration = Duration::from_millis(1);
/// The time for an answer. A server that was stopped gives none.
const GIVE_UP: Duration = Duration::from_secs(5);

/// It goes on until it is dropped, also after the server was started again.
pub(super) struct Meddler {
    is_over: Arc<AtomicBool>,
}

impl Meddler {
    /// Returns `None` for a fault that is in the settings alone.
    pub(super) fn start(server: SocketAddr, fault: Fault) -> Option<Self> {
        let change = format!(
            "for _, key in ipairs(rows('*')) do
               local row = look(key)
               {}
             end
             return 0",
            change(fault)?
        );
        let command = format!("{}\r\n", command(&change, ""));
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                // An error: the server is down.
                let _ = meddle(server, &command, &over);
                thread::sleep(EVERY);
            }
        });
        Some(Self { is_over })
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// What becomes of each row.
fn change(fault: Fault) -> Option<&'static str> {
    Some(match fault {
        // The claims by which a store tries the server out have no session. It would be refused.
        Fault::NoCompare => "if row.kind == 3 or (row.kind == 1 and row.session) then redis.call('UNLINK', key) end",
        // It stays what it is at first, as in PostgreSQL.
        Fault::LeasesLookOver => {
            "if row.kind == 6 and now > row.began + 2000 then redis.call('SETRANGE', key, 37, '+00005') end"
        }
        // As keys with a time to live do.
        Fault::OneClock => "if row.expires <= now then redis.call('UNLINK', key) end",
        Fault::UnknownIsAbsent => "if row.is_later then redis.call('UNLINK', key) end",
        Fault::AnsweredEarly => return None,
    })
}

fn meddle(server: SocketAddr, command: &str, is_over: &AtomicBool) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GIVE_UP))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut answer = String::new();
    while !is_over.load(Ordering::SeqCst) {
        stream.write_all(command.as_bytes())?;
        answer.clear();
        if answers.read_line(&mut answer)? == 0 {
            break;
        }
        assert!(!answer.starts_with("-ERR"), "the script is not sound: {answer}");
        thread::sleep(EVERY);
    }
    Ok(())
}
