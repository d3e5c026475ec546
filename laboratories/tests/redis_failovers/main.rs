//! Failovers of a Redis primary to a replica that lags, for each durability: what was answered and is lost, and what is
//! granted twice.
//!
//! Eight writers claim rows and complete them, over a name that leads to the primary. The replica is stopped, and the
//! primary is killed 0.15 s later. The replica goes on, and is promoted at once; the name leads to it, and the lost
//! server comes back as its replica. A write without an answer is sent again with its token until it has one, as the
//! store does. Then each row whose claim was answered is read at the new primary, and claimed by another process.
//!
//! The replica lags in two ways:
//!
//! - It is *stopped*. The system keeps for it what the primary has sent. Redis 7.0 is promoted before it reads that;
//!   Valkey 9 reads most of it first.
//! - It is *cut off*: the primary ends its link, too, and sends nothing. What is answered from then on is lost for
//!   certain, unless it waits for the replica. With [`Durability::Memory`] this is the control.
//!
//! Each durability prints rows of a table with these columns:
//!
//! | durability | replica | failovers | claims answered | outcomes answered | claims lost | outcomes lost | twice |
//! |---|---|---|---|---|---|---|---|
//!
//! The long form:
//!
//! ```text
//! ROUNDS=20 cargo test -p laboratories --test redis_failovers -- --nocapture
//! ```
//!
//! The program is the first `valkey-server` or `redis-server` on the path. A wait for a replica's disk needs Redis 7.2,
//! or a Valkey.
#![cfg(target_os = "linux")]

mod losses;
mod round;
mod writers;

use testkit::dice::number;
use tower_idempotency_redis::Durability;

use crate::losses::Losses;
use crate::round::{Lag, Round};

const APPENDS: &[&str] = &["appendonly yes", "appendfsync always"];

/// Plays the rounds, and prints their row. Returns `None` if the promise can't be shown here.
async fn fail_over(durability: Durability, settings: &[&str], lag: Lag) -> Option<Losses> {
    let (name, rounds) = (format!("failovers with {durability}"), number::<usize>("ROUNDS").unwrap_or(2));
    let mut losses = Losses::default();
    for _ in 0..rounds {
        losses.add(Round::start(&name, durability, settings).await?.play(lag).await);
    }
    println!("| {durability} | {lag} | {rounds} | {losses} |");
    Some(losses)
}

/// Plays the rounds of a durability of which no failover takes anything.
async fn nothing_is_lost(durability: Durability, settings: &[&str]) {
    for lag in [Lag::Stopped, Lag::CutOff] {
        let Some(losses) = fail_over(durability, settings, lag).await else { return };
        assert!(losses.answered > 0, "nothing was answered");
        assert_eq!((losses.claims, losses.outcomes, losses.twice), (0, 0, 0), "{durability}, {lag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_loses_nothing_that_waited_for_the_replica() {
    nothing_is_lost(Durability::Replicas { count: 1, fsync: false }, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_134_a_failover_loses_nothing_that_waited_for_the_disk_of_the_replica() {
    nothing_is_lost(Durability::Replicas { count: 1, fsync: true }, APPENDS).await;
}

/// The losses are in the rows that are printed, and no number of them fails the test.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_loses_that_waited_for_no_replica_is_counted() {
    for (durability, settings) in [(Durability::Memory, &[] as &[&str]), (Durability::LocalAof, APPENDS)] {
        if fail_over(durability, settings, Lag::Stopped).await.is_none() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_where_no_write_waits_for_a_replica_that_is_cut_off_rows_are_lost_and_granted_twice() {
    for (durability, settings) in [(Durability::Memory, &[] as &[&str]), (Durability::LocalAof, APPENDS)] {
        let Some(losses) = fail_over(durability, settings, Lag::CutOff).await else { return };
        assert!(losses.claims > 0 && losses.twice > 0, "{durability}: {losses:?}");
    }
}
