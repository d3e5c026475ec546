//! Three payment servers over one PostgreSQL, behind a balancer that sends each request to any of them.
#![cfg(target_os = "linux")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../../../tests/common/postgres.rs"]
mod postgres;

mod away;
mod balancer;
mod client;
mod cuts;
mod database;
mod dice;
mod failover;
mod fleet;
mod late;
mod load;
mod mid_charge;
mod mixed;
mod one_charge;
mod operator;
mod outages;
mod put;
mod report;
mod rolling;
mod wire;
