//! Tests a Redis or Valkey database.

use tower_idempotency_redis::{RedisBackend, RedisError};
use tower_idempotency_shared::{Backend as _, Clocks};

use super::database::{NAMESPACE, losses, test_claims};
use super::grade::Grade;
use super::report::Report;
use crate::address::RedisDatabase;
use crate::arguments::StoreOptions;
use crate::failure::{Failure, with_causes};
use crate::open::patient_redis;

/// The most rows of earlier tests that one deletes.
const ROWS: usize = 10_000;

pub(super) async fn test(database: &RedisDatabase, options: &StoreOptions, report: &mut Report) -> Result<(), Failure> {
    // What a service would have to accept by name is found below.
    let builder = patient_redis(database, options)?.accept_eviction().accept_unknown_settings();
    // As the service does: the version, the durability, the rights, and claims of a row of its own.
    let application = match builder.clone().open().await {
        Ok(application) => application,
        Err(error) => return not_opened(&error, report),
    };
    report.good("connection", "the database is reached, and takes writes")?;
    report.good("rights", "the user may do all that the store does in this namespace")?;
    let guarantee = application.guarantee().await.map_err(Failure::of)?;
    losses(&guarantee, grade, report)?;
    drop(application);
    let builder = builder.namespace(NAMESPACE).map_err(Failure::of)?;
    let opened = async { Ok::<_, RedisError>((builder.clone().open().await?, builder.open().await?)) }.await;
    if let Ok((one, _)) = &opened {
        clean_up(one, report).await?;
    }
    test_claims(opened, report).await
}

/// Deletes the rows of earlier tests: those of this one are kept for some minutes.
async fn clean_up(backend: &RedisBackend, report: &mut Report) -> Result<(), Failure> {
    match backend.delete_expired(Clocks::default(), ROWS).await {
        Ok(_) => Ok(()),
        Err(error) => {
            report.note("clean-up", format!("rows of earlier tests were not deleted: {}", with_causes(&error)))
        }
    }
}

fn not_opened(error: &RedisError, report: &mut Report) -> Result<(), Failure> {
    let (check, grade) = check_of(error);
    report.found(check, grade, with_causes(error))
}

fn check_of(error: &RedisError) -> (&'static str, Grade) {
    match error {
        RedisError::ClaimIgnored => ("claim twice", Grade::ClaimIgnored),
        RedisError::Unsupported { .. } => ("server", Grade::OtherRelease),
        RedisError::Refused { .. } => ("rights", Grade::Refused),
        RedisError::NotDurable { .. } => ("can lose", Grade::NotDurable),
        _ => ("connection", Grade::NotTested),
    }
}

/// Judges a loss by its words, which `guarantee.rs` of tower-idempotency-redis has. One that this release does not know
/// is taken for the worst.
fn grade(loss: &str) -> Grade {
    let has = |known: &str| loss.contains(known);
    let unclear = ["unknown", "CVE-", "lose power together", "then its disk counts", "that was not waited for"];
    if unclear.into_iter().any(has) {
        // People have to judge whether that can happen to these servers.
        Grade::Unclear
    } else if has("this one's disk is lost") {
        Grade::OneCopy
    } else {
        Grade::NotDurable
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_server_that_no_store_can_use_is_no_missing_right() {
        // A reason says nothing to this test: a host may have any name.
        let reason = "NOPERM.does-not-compare-and-set.example:1: it is older than Redis 7.0".to_owned();
        for (error, found) in [
            (RedisError::Unsupported { reason: reason.clone() }, ("server", Grade::OtherRelease)),
            (RedisError::Refused { reason: reason.clone() }, ("rights", Grade::Refused)),
            (RedisError::NotDurable { reason: reason.clone() }, ("can lose", Grade::NotDurable)),
            (RedisError::Away { waited: Duration::ZERO, reason }, ("connection", Grade::NotTested)),
            (RedisError::ClaimIgnored, ("claim twice", Grade::ClaimIgnored)),
        ] {
            assert_eq!(check_of(&error), found, "{error}");
        }
    }

    #[test]
    fn a_loss_that_is_not_known_is_taken_for_the_worst() {
        for (loss, judged) in [
            ("Something else.", Grade::NotDurable),
            ("Any record, when the memory is full: maxmemory-policy is allkeys-lru.", Grade::NotDurable),
            ("Any record, when the memory is full: maxmemory-policy is unknown.", Grade::Unclear),
            ("Any record, if this release has …: CVE-2026-23631.", Grade::Unclear),
            ("What …, when another server takes over or this one's disk is lost (durability aof).", Grade::OneCopy),
        ] {
            assert_eq!(grade(loss), judged, "{loss}");
        }
    }
}
