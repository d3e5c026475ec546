//! Servers with a clock of their own.

use std::ffi::OsString;
use std::time::{Instant, SystemTime};

use super::{GIVE_UP, LOOK, RedisServer, program};
use crate::postgres::FakeClock;

/// The difference in seconds between two clocks that show the same time, on a machine that stalls.
const SAME: i64 = 300;

impl RedisServer {
    /// A new server, with a [clock of its own](Self::set_clock), which is right at first.
    pub fn with_a_clock(settings: &[&str]) -> Result<Self, String> {
        let mut server = Self::prepared(program()?, settings)?;
        server.clock = Some(FakeClock::new(&server.directory)?);
        server.launch_anywhere();
        Ok(server)
    }

    /// Sets its clock so many seconds ahead of the machine's, or behind it. It goes by it when this returns.
    pub fn set_clock(&self, ahead: i64) {
        self.clock.as_ref().expect("it has a clock of its own").set(ahead);
        let begin = Instant::now();
        while (self.ahead() - ahead).abs() > SAME {
            assert!(begin.elapsed() < GIVE_UP, "the server's clock is not set");
            std::thread::sleep(LOOK);
        }
    }

    /// The seconds by which its clock is ahead of the machine's.
    fn ahead(&self) -> i64 {
        let answer = self.say("TIME");
        let seconds: i64 = answer.lines().nth(2).and_then(|line| line.parse().ok()).expect("it says the time");
        let machine = SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970").as_secs();
        seconds - i64::try_from(machine).expect("it fits")
    }

    /// The command before the program, for a clock of its own. Debian's Redis has an allocator that asks for the time
    /// before the clock's library is ready: the allocator of the C library comes before it.
    pub(super) fn wrapper(&self) -> impl Iterator<Item = OsString> {
        self.clock.iter().flat_map(FakeClock::wrapper).map(|mut part| {
            if part.to_string_lossy().starts_with("LD_PRELOAD=") {
                part.push(" libc.so.6");
            }
            part
        })
    }
}
