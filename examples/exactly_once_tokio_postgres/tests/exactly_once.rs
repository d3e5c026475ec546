//! The test of exactly once, over two processes and a server that is killed meanwhile.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use exactly_once_tokio_postgres::Bank;
use testkit::exactly_once;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_takes_place_once_though_the_server_is_killed() {
    exactly_once::pay_while_the_server_is_killed(async |url| Bank::open(url).await.unwrap().app()).await;
}
