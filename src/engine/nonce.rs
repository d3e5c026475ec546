//! Nonces, by which a claim that is sent again is known for our own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::record::Nonce;
use crate::store::StoreError;

/// Drawn once in a process: 128 random bits, from which its nonces are counted up.
static FIRST: OnceLock<u128> = OnceLock::new();
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A nonce that no other claim has: not of this process, and of another one only by a chance of 1 in 2^64.
///
/// But for processes that are copies of each other, forked or restored from one snapshot of a machine: they count up from the
/// same number. No store is shared by two processes today; one that is must draw anew for each claim.
pub(super) fn draw() -> Result<Nonce, StoreError> {
    let first = match FIRST.get() {
        Some(first) => *first,
        None => {
            let random = random()?;
            *FIRST.get_or_init(|| random)
        }
    };
    Ok(first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).into()).to_be_bytes())
}

fn random() -> Result<u128, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Unavailable {
        reason: "the operating system gives no random numbers".to_owned(),
        source: Some(error.to_string().into()),
    })?;
    Ok(u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike_whichever_thread_draws() {
        let draw_many = || (0..1_000).map(|_| draw().unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw_many)).collect();
        let mut drawn: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 4_000);
    }
}
