//! Orders whose acknowledgements are lost are delivered again by a real broker.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::TcpStream;

use rabbitmq::{Broker, Sum, run};
use testkit::skipped;

const ORDERS: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_200_orders_that_are_redelivered_sends_one_mail_and_without_the_crate_two() {
    let broker = match Broker::start() {
        Ok(broker) => broker,
        Err(why) if why.kind() == ErrorKind::NotFound => {
            return skipped("that redelivered orders send one mail", &why.to_string());
        }
        Err(why) => panic!("{why}"),
    };
    let both = Sum { deliveries: 2 * ORDERS, redelivered: ORDERS, ..Sum::default() };
    let naive = run(&broker, ORDERS, false).await.unwrap();
    assert_eq!(naive, Sum { mails: 2 * ORDERS, twice: ORDERS, ..both });
    let ours = run(&broker, ORDERS, true).await.unwrap();
    assert_eq!(ours, Sum { mails: ORDERS, twice: 0, ..both });
    let address = broker.address();
    drop(broker);
    assert!(TcpStream::connect(address).is_err(), "the broker ends");
}
