//! A store of `cratestack-axum` for one process. That crate has stores on Postgres and Redis only.

use std::time::SystemTime;

use async_trait::async_trait;
use cratestack_core::{CratestackError, IdempotencyRecord, IdempotencyStore, ReservationOutcome};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use uuid::Uuid;

/// The store that users of that crate would write for one process: a map with atomic claims.
#[derive(Debug, Default)]
pub(crate) struct Records(DashMap<(String, String), Reserved>);

#[derive(Debug)]
struct Reserved {
    token: Uuid,
    hash: [u8; 32],
    expires: SystemTime,
    done: Option<IdempotencyRecord>,
}

#[async_trait]
impl IdempotencyStore for Records {
    async fn reserve_or_fetch(
        &self,
        principal: &str,
        key: &str,
        hash: [u8; 32],
        expires: SystemTime,
    ) -> Result<ReservationOutcome, CratestackError> {
        let token = Uuid::new_v4();
        let reserved = Reserved { token, hash, expires, done: None };
        Ok(match self.0.entry((principal.to_owned(), key.to_owned())) {
            Entry::Vacant(place) => {
                place.insert(reserved);
                ReservationOutcome::Reserved { token }
            }
            Entry::Occupied(mut place) if place.get().expires < SystemTime::now() => {
                place.insert(reserved);
                ReservationOutcome::Reserved { token }
            }
            Entry::Occupied(place) if place.get().hash != hash => ReservationOutcome::Conflict,
            Entry::Occupied(place) => {
                place.get().done.clone().map_or(ReservationOutcome::InFlight, ReservationOutcome::Replay)
            }
        })
    }

    async fn complete(
        &self,
        principal: &str,
        key: &str,
        token: Uuid,
        status: u16,
        headers: &[u8],
        body: &[u8],
    ) -> Result<(), CratestackError> {
        let reserved = self.0.get_mut(&(principal.to_owned(), key.to_owned()));
        if let Some(mut reserved) = reserved.filter(|reserved| reserved.token == token) {
            reserved.done = Some(IdempotencyRecord {
                key: key.to_owned(),
                principal_fingerprint: principal.to_owned(),
                request_hash: reserved.hash,
                response_status: status,
                response_headers: headers.to_owned(),
                response_body: body.to_owned(),
                created_at: SystemTime::now(),
                expires_at: reserved.expires,
            });
        }
        Ok(())
    }

    async fn release(&self, principal: &str, key: &str, token: Uuid) -> Result<(), CratestackError> {
        self.0.remove_if(&(principal.to_owned(), key.to_owned()), |_, reserved| reserved.token == token);
        Ok(())
    }
}
