//! Three payment servers over one database, PostgreSQL or Redis, behind a balancer that sends each request to any of
//! them. Each key is charged once and answered the same, whatever happens to the servers, to the database, and to the
//! links between them.
//!
//! The processes, the sockets and the database are real; this program starts the database for itself. Each server has a
//! ledger of its own. The effects are counted over all of them, and `testkit::history` compares them with the answers
//! that clients got. The runs:
//!
//! - [`one_charge`]: copies of each request, at random servers, some at once; also while servers are killed.
//! - [`mid_charge`]: a server is killed in the middle of a charge; the answers before its lease is over, and after it.
//! - [`outages`], [`away`], [`cuts`]: the database is killed, is stopped, is away for long; its connections are cut.
//! - [`failover`]: the primary is lost, and its standby is promoted.
//! - [`rolling`]: the servers are replaced, one after the other.
//! - [`clocks`]: the database's clock, or a server's, is hours or days wrong.
//! - [`mixed`]: rows that a later release has written.
//! - [`chaos`]: all faults, at random and at once.
//!
//! Each run is a test over PostgreSQL and a test over Redis, with `over_postgres` or `over_redis` in its name. The
//! program of Redis is the first `valkey-server` or `redis-server` on the path.
//!
//! Each run has a control, in the same file: the same run with something broken, which must show violations. The broken
//! part is the set-up of the servers, the way in which they end, or the database (`database/fault.rs`).
//!
//! The long forms; the last line of each run has the figures:
//!
//! ```text
//! CHARGES=10000 cargo test -p laboratories --test several_servers one_charge -- --nocapture
//! AWAY=60 OUTAGES=20 … away outages
//! CUT_EVERY=1 CUTS=2000 … cuts
//! CLOCKS=60 … clocks
//! ROUNDS=20 … failover
//! DEPLOYS=10 … rolling
//! FAULTS=200 … chaos
//! ```
//!
//! `SERVER_LOGS=DIRECTORY` keeps the servers' logs in that directory.
#![cfg(target_os = "linux")]

mod balancer;
mod client;
mod database;
mod fleet;
mod load;
mod operator;
mod put;
mod report;
mod scenes;
mod wire;
