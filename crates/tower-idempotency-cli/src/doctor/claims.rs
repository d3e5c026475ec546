//! Tests the one thing on which all rests: a database compares and sets a row, once.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{
    Backend, BackendError, Clocks, Expect, Kind, NewExpiry, NewFence, Row, Stamp, Token, Write,
};

use crate::failure::with_causes;

/// The rows expire by themselves if this process is killed.
const KEPT: Duration = Duration::from_secs(60);
/// How often a call is tried again that says that a row is locked, or whose answer is lost; and the pause between.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);
/// Claims of one key at once.
const AT_ONCE: usize = 8;

/// For each check, what was seen.
pub(super) type Seen = Vec<(&'static str, &'static str)>;

/// How a store has not kept to the contract.
#[derive(Debug)]
pub(super) enum Fault {
    /// In this check, it has granted a claim that it must not, or has lost one.
    Broken(&'static str, String),
    /// It did not do what it was asked.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Failed(with_causes(&error))
    }
}

/// Tests claims of new keys by two connections of their own, as two servers have them. Returns the time by the
/// database's clock, too.
pub(super) async fn test(one: &impl Backend, other: &impl Backend) -> Result<(Seen, Timestamp), Fault> {
    let mut seen = Vec::new();
    macro_rules! require {
        ($check:literal, $condition:expr, $fault:expr) => {
            if !$condition {
                return Err(Fault::Broken($check, $fault.to_owned()));
            }
        };
    }
    let id = new_id();
    let (first, second) = (claim(id), claim(id));
    let taken = put(one, &first).await?;
    require!("claim", is(&taken, first.token), "a claim of a new key was not granted");
    let refused = put(other, &second).await?;
    require!("claim twice", !is(&refused, second.token), "the second claim of the same key was granted too");
    require!("claim twice", is(&refused, first.token), "the first claim is not there when the key is claimed again");
    let read = get(other, id).await?;
    require!("claim twice", is(&read, first.token), "another connection does not see the claim");
    seen.push(("claim twice", "the second claim of a key is refused"));

    let again = put(one, &first).await?;
    let fence = |row: &Option<Row>| row.as_ref().map(|row| row.fence);
    require!(
        "lost answer",
        is(&again, first.token),
        "a claim that is sent again, as if its answer was lost, is refused"
    );
    require!("lost answer", fence(&again) == fence(&taken), "a claim that is sent again has another fence");
    seen.push(("lost answer", "a claim that is sent again is answered as the first time, and granted once"));

    let late = ended(id, token());
    require!(
        "end of a run",
        !is(&put(other, &late).await?, late.token),
        "the end of a run that is not this one was recorded"
    );
    let end = ended(id, first.token);
    require!("end of a run", is(&put(one, &end).await?, end.token), "the end of a run was not recorded");
    let third = claim(id);
    require!(
        "end of a run",
        is(&put(other, &third).await?, end.token),
        "a key was granted again after its run had ended"
    );
    seen.push(("end of a run", "it is recorded once, and the key is not granted again"));

    let id = new_id();
    let claims: Vec<Write> = (0..AT_ONCE).map(|_| claim(id)).collect();
    let rows = join_all(claims.iter().enumerate().map(|(number, claim)| async move {
        if number % 2 == 0 { put(one, claim).await } else { put(other, claim).await }
    }))
    .await;
    let mut granted = 0;
    for (row, claim) in rows.into_iter().zip(&claims) {
        granted += usize::from(is(&row?, claim.token));
    }
    require!("at once", granted == 1, format!("of {AT_ONCE} claims of one key at once, {granted} were granted"));
    seen.push(("at once", "of several claims of a key at once, one is granted"));
    Ok((seen, one.get(Clocks::default(), &[]).await?.now))
}

/// Sends a write until it is known what became of it.
async fn put(backend: &impl Backend, write: &Write) -> Result<Option<Row>, BackendError> {
    let mut tries = 1;
    loop {
        let last = tries == TRIES;
        match backend.put(Clocks::default(), std::slice::from_ref(write)).await {
            Ok(answer) => {
                let row = answer.rows.into_iter().next().flatten();
                // Something else has the row locked.
                let is_busy = match (&row, write.expect) {
                    (None, Expect::Absent) => true,
                    (Some(row), Expect::Token(token)) => row.token == token,
                    _ => false,
                };
                if !is_busy || last {
                    return Ok(row);
                }
            }
            Err(BackendError::Busy(_) | BackendError::Crowded(_) | BackendError::Uncertain(_)) if !last => {}
            Err(error) => return Err(error),
        }
        tries += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn get(backend: &impl Backend, id: RecordId) -> Result<Option<Row>, BackendError> {
    Ok(backend.get(Clocks::default(), &[id]).await?.rows.into_iter().next().flatten())
}

fn is(row: &Option<Row>, token: Token) -> bool {
    row.as_ref().is_some_and(|row| row.token == token)
}

fn claim(id: RecordId) -> Write {
    Write {
        id,
        expect: Expect::Absent,
        token: token(),
        fence: NewFence::Above(Fence(0)),
        kind: Kind::Running,
        session: None,
        until: Some(KEPT),
        began: Stamp::Now,
        since: Stamp::Now,
        expires: NewExpiry::In(KEPT),
        state: Bytes::from_static(b"idem doctor"),
    }
}

fn ended(id: RecordId, expect: Token) -> Write {
    let expect = Expect::Token(expect);
    Write { expect, fence: NewFence::Keep, kind: Kind::Completed, until: None, began: Stamp::Keep, ..claim(id) }
}

/// An id that no key has.
pub(super) fn new_id() -> RecordId {
    RecordId::from_bytes(random())
}

fn token() -> Token {
    Token(random())
}

/// Random bytes. All zeros if there are none to be had: then the second token equals the first, and the test fails.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = getrandom::fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use tower_idempotency_conformance::memory_backend::{Call, MemoryBackend};

    use super::*;

    #[tokio::test]
    async fn a_database_in_which_claims_at_once_do_not_see_each_other_is_broken() {
        for is_broken in [false, true] {
            let one = MemoryBackend::new();
            let other = one.another_process();
            let (first, second, database) = (one.hold(Call::Put), other.hold(Call::Put), one.database());
            let answer = async {
                loop {
                    let are_at_once = first.held() + second.held() == AT_ONCE;
                    while first.release_one() || second.release_one() {
                        let rows = database.rows("").into_iter().filter(|row| row.kind == Kind::Running);
                        rows.filter(|_| is_broken && are_at_once).for_each(|row| database.delete("", row.id));
                    }
                    tokio::task::yield_now().await;
                }
            };
            let tested = tokio::select! {
                tested = test(&one, &other) => tested,
                () = answer => unreachable!("it has no end"),
            };
            let said = if is_broken { "8 claims of one key at once, 8 were granted" } else { "Ok(" };
            let tested = format!("{tested:?}");
            assert!(tested.contains(said), "{tested}");
        }
    }
}
