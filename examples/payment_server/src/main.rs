//! A payment server whose charges can be retried safely.
//!
//! Run it:
//!
//! ```text
//! cargo run -p payment_server -- [--listen 127.0.0.1:4242] [--data ./payment-data] [--retention SECONDS]
//!     [--on-interrupted refuse|rerun|reconcile] [--atomic] [--on-in-flight reject|wait:SECONDS]
//!     [--store sled|sled:PATH|memory|fjall|fjall:PATH|postgres://USER@HOST/DATABASE|redis://HOST]
//!     [--lease SECONDS] [--namespace NAME] [--config FILE]
//! ```
//!
//! `--store fjall`, `--store postgres://…` and `--store redis://…` need the feature of that name: `cargo run -p
//! payment_server --features postgres -- --store …`.
//!
//! It prints its address, and two lines to try. Its behaviour:
//!
//! 1. The same charge sent twice with one `Idempotency-Key`: the second answer has the same `id`, and
//!    `idempotent-replayed: true`. `GET /v1/charges` lists one charge.
//! 2. The same key with another amount: 422, and nothing is charged. After `amount=abc`, which gets 400, the key is
//!    free: the same key with `amount=1000` charges.
//! 3. The faults by `source`: `tok_visa` charges; `tok_chargeDeclined` is declined (402); `tok_slow` takes two seconds;
//!    `tok_error` charges and answers 500; `tok_unavailable` answers 503 before charging, so that a retry runs;
//!    `tok_panic` charges and panics; `tok_crash` charges and ends the process with code 70.
//! 4. After `tok_crash`, start it again and retry: 409 `outcome-unknown`. Only you can find out whether the charge took
//!    place. Look the charge up in `GET /v1/charges`, and settle it on the page <http://127.0.0.1:4242/admin>, one way
//!    or the other. The same with curl:
//!
//! ```text
//! curl 'http://127.0.0.1:4242/admin/api/operations?state=interrupted'
//! curl http://127.0.0.1:4242/admin/api/changes -H 'Sec-Fetch-Site: same-origin' \
//!     --json '{"changes":[{"id":"ID","fence":"N","action":"release"}]}'
//! ```
//!
//! `release` frees the key: a retry charges. `answer` gives retries an answer; `GET /admin/api/openapi.json` describes
//! it. The page and its API are open to this machine alone.
//!
//! 5. The same with `--on-interrupted reconcile`: the server looks the charge up in its own ledger, by the key that it
//!    derived for it, and answers the retry with it. An operation that charged nothing runs again. At the start the
//!    server does so for all operations that the last process left.
//! 6. The same with `--atomic`: charge and record are one transaction, so the retry after `tok_crash` is answered with
//!    the one charge. An operation without a record did not take place, so the default is `rerun`.
//!
//! 7. Several servers over one database, each with a `--data` of its own:
//!
//! ```text
//! cargo run -p payment_server --features postgres -- --store postgres://USER@HOST/DATABASE --data ./one
//! cargo run -p payment_server --features postgres -- --store postgres://USER@HOST/DATABASE --data ./other \
//!     --listen 127.0.0.1:4243
//! ```
//!
//! A charge sent to one of them is replayed by the other, if both are called by one name (`-H 'Host: pay.example'`).
//! When a server dies, the others answer `in-flight` until its session is over, 17/12 of its `--lease`; then
//! `--on-interrupted` decides.
//! Each has a ledger of its own: `GET /v1/charges` of all of them shows all effects, a refund goes to the server of its
//! charge, and under `reconcile` what a server does not find in its ledger stays unknown: another may have charged it.
//! The page lists charges that ended after their key had been taken over or freed.
//!
//! 8. The same with `--atomic` for all of them: the ledger is the table `payment_server.charge` in that database, and
//!    charge and record are one transaction. A server may die at any point: the other runs the charge if it did not
//!    take place, and answers with it if it did. Any of them lists and refunds all charges. `--data` is not used.
//!
//! 9. `--config FILE` has all options of the layer and of the stores, in TOML or JSON. The environment overrides it:
//!
//! ```text
//! printf '[layer]\nretention = "48h"\nrequire_key = true\n' > payments.toml
//! PAYMENTS_LAYER__RETENTION=72h cargo run -p payment_server -- --config payments.toml
//! ```
//!
//! An `Authorization` header (Bearer or Basic, any value) names the account; without it, requests share a demo account.
//! Each answer repeats the request's `Idempotency-Key`, and has a `Request-Id` of its own, a replay too.
//! It speaks HTTP/1.1 and HTTP/2 (`curl --http2-prior-knowledge`). Ctrl-C or SIGTERM finishes the requests under way,
//! cuts connections that stall, and exits with 0, or with 1 if a charge was not recorded. `GET /readyz` says whether
//! the server takes new keys, `GET /livez` whether a restart would help, `GET /metrics` is for Prometheus, and `GET
//! /docs/clients` for those who write clients.
//! `RUST_LOG=payment_server=debug` shows the settings of the layer.

#[tokio::main]
async fn main() {
    payment_server::main().await;
}
