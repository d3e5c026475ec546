//! A closed loop: so many clients, each with one request under way.

use std::time::{Duration, Instant};

use axum::Router;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::estimate::{micros, quantile};
use super::exchange::send;
use crate::Dice;

/// The result of a round.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Round {
    /// Per second.
    pub throughput: f64,
    /// In µs.
    pub p50: f64,
    pub p99: f64,
}

/// Sends `requests` charges, each with a key of its own, from `clients` at once.
pub async fn round(app: &Router, clients: usize, requests: usize, serial: &mut u64) -> Round {
    let mut running = JoinSet::new();
    let began = Instant::now();
    for _ in 0..clients {
        let (app, first, share) = (app.clone(), *serial, requests / clients);
        *serial += share as u64;
        running.spawn(async move {
            let mut times = Vec::with_capacity(share);
            for number in first..first + share as u64 {
                let key = key(number);
                let began = Instant::now();
                send(&app, Some(&key)).await;
                times.push(began.elapsed());
            }
            times
        });
    }
    let times = running.join_all().await.into_iter().flatten().collect();
    Round::of(times, began.elapsed())
}

impl Round {
    /// Of so many exchanges, in so much time together.
    pub fn of(mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort();
        Self {
            throughput: times.len() as f64 / took.as_secs_f64(),
            p50: micros(quantile(&times, 0.5)),
            p99: micros(quantile(&times, 0.99)),
        }
    }
}

/// A key as clients make them: a UUID, another one for each number.
pub fn key(number: u64) -> String {
    let (high, low) = (Dice::new(number).roll(), Dice::new(!number).roll());
    let (first, second, third) = (high >> 32, high >> 16 & 0xffff, high & 0xfff);
    let (fourth, fifth) = (low >> 48 & 0x3fff | 0x8000, low & 0xffff_ffff_ffff);
    format!("{first:08x}-{second:04x}-4{third:03x}-{fourth:04x}-{fifth:012x}")
}
