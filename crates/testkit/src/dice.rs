//! Chance, and how large a run is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::time::Duration;

/// Random numbers that come again with the same seed (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by several numbers.
    pub fn of(seeds: &[u64]) -> Self {
        let mut dice = Self(0);
        for seed in seeds {
            dice.0 ^= *seed;
            dice.0 = dice.roll();
        }
        dice
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % (end as u64)).expect("less than a usize")
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// True in so many of a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
}

/// A seed that never comes again.
pub fn seed() -> u64 {
    getrandom::u64().expect("random numbers")
}

/// Less than `end`, by dice that are thrown once.
pub fn below(end: usize) -> usize {
    Dice::new(seed()).below(end)
}

/// A time below `bound`, likewise.
pub fn time_below(bound: Duration) -> Duration {
    bound * (below(1 << 16) as u32) / (1 << 16)
}

/// A number of the environment: a seed, or the size of a run.
pub fn number<N: FromStr>(variable: &str) -> Option<N> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// An address of one's own: nothing else answers there when who listened is gone. Linux has millions of them.
pub fn loopback() -> Ipv4Addr {
    let [_, high, middle, low] = (seed() as u32).to_be_bytes();
    let own = Ipv4Addr::new(127, 64 | (high & 127), middle, low.clamp(1, 254));
    if cfg!(target_os = "linux") { own } else { Ipv4Addr::LOCALHOST }
}

/// An address at which nothing listens.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((loopback(), 0)).expect("loopback has a free port");
    listener.local_addr().expect("it is bound")
}
