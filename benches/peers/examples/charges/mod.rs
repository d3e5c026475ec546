//! The operation of the servers that `checked/run` examines: the same in front of which each middleware is.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

/// The most charges that a list shows.
const LISTED: usize = 200;

#[derive(Debug, Clone, Default)]
struct Charges {
    made: Arc<Mutex<usize>>,
    refused: Arc<AtomicUsize>,
}

#[derive(Debug, Deserialize)]
struct Charge {
    kind: Option<String>,
}

/// Returns the app: `POST /charges`, which is protected, makes a charge, and `GET /charges` lists them.
pub(crate) fn app(protect: impl FnOnce(Router) -> Router) -> Router {
    let charges = Charges::default();
    let make = Router::new().route("/charges", post(charge)).with_state(charges.clone());
    protect(make).merge(Router::new().route("/charges", get(list)).with_state(charges))
}

/// Serves on the port of the first argument, or on a free one, and prints the URL.
pub(crate) async fn serve(app: Router) {
    let port = std::env::args().nth(1).map_or(0, |port| port.parse().expect("the argument is a port"));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is free");
    println!("http://{}", listener.local_addr().expect("it is bound"));
    axum::serve(listener, app).await.expect("it serves");
}

async fn charge(State(charges): State<Charges>, Json(charge): Json<Charge>) -> (StatusCode, Json<Value>) {
    // The number tells a refusal that comes again from a replay.
    let error = |status, name| (status, Json(json!({ "error": name, "number": charges.refuse() })));
    // What a payment provider would take.
    let kind = charge.kind.as_deref();
    tokio::time::sleep(Duration::from_millis(if kind == Some("slow") { 1_500 } else { 20 })).await;
    match kind {
        Some("declined") => return error(StatusCode::PAYMENT_REQUIRED, "declined"),
        Some("limited") => return error(StatusCode::TOO_MANY_REQUESTS, "limited"),
        _ => {}
    }
    let id = charges.add();
    match kind {
        Some("fails") => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": "failed" }))),
        _ => (StatusCode::CREATED, Json(named(id))),
    }
}

async fn list(State(charges): State<Charges>) -> Json<Vec<Value>> {
    let made = *charges.made();
    Json((1..=made).rev().take(LISTED).map(named).collect())
}

fn named(id: usize) -> Value {
    json!({ "id": format!("ch_{id}") })
}

impl Charges {
    fn made(&self) -> MutexGuard<'_, usize> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self) -> usize {
        self.refused.fetch_add(1, Ordering::Relaxed)
    }

    fn add(&self) -> usize {
        let mut made = self.made();
        *made += 1;
        *made
    }
}
