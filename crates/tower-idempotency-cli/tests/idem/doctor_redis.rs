//! `idem doctor` over Redis: good databases, and those that lose what they have answered.

use testkit::redis::{RedisServer, own_server};
use tower_idempotency::store::Store as _;

use crate::doctor_sled::{assert_ends, checks_of};
use crate::program::{Said, idem, json, program, run};
use crate::redis::{durable_server, opened, url};
use crate::service::{Service, id};

/// What can be lost, line by line.
fn losses(said: &Said) -> Vec<&str> {
    said.stdout.lines().filter(|line| line.get(9..17) == Some("can lose")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_database_is_found_good_and_its_operations_stay_as_they_were() {
    let Some(server) = durable_server("that a good database is found good") else { return };
    let url = url(&server);
    let store = opened(&url).await;
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    let before = json(0, &["show", &url, &id("k1").to_string()])["fence"].clone();
    let said = idem(&["doctor", &url]);
    assert_ends(&said, 0, "one-copy");
    let checks = [
        "release", "connection", "rights", "set-up", "can lose", "syncs", "claim twice", "lost answer", "end of a run",
        "at once", "clock",
    ];
    assert_eq!(checks_of(&said), checks);
    assert!(!said.stdout.contains("BAD"), "{}", said.stdout);
    assert!(losses(&said)[0].contains("another server takes over"), "{said:?}");
    assert_eq!(json(0, &["doctor", &url])["result"], "one-copy");
    assert_eq!(json(0, &["show", &url, &id("k1").to_string()])["fence"], before);
    // Its own rows are in a namespace that no service has.
    let keys = server.say("KEYS ti:*:m");
    assert!(keys.contains("ti:{idem-doctor}:m") && keys.contains("ti:{payments}:m"), "{keys}");
}

#[test]
fn a_durability_that_the_server_does_not_have_is_found_out() {
    let Some(server) = own_server("that a durability is found out", &[]) else { return };
    let said = idem(&["doctor", &server.url()]);
    assert_ends(&said, 1, "not-durable");
    assert!(losses(&said)[0].contains("appendonly is off"), "{said:?}");
    let said = idem(&["doctor", &format!("{}?durability=memory", server.url())]);
    assert_ends(&said, 1, "not-durable");
    let [loss] = losses(&said).try_into().unwrap();
    assert!(loss.contains("BAD") && loss.contains("in memory alone (durability memory)"), "{said:?}");
    // The rest is tested all the same.
    assert!(checks_of(&said).contains(&"claim twice"), "{said:?}");
}

/// Each line says what people have to judge.
#[test]
fn a_database_whose_replica_is_waited_for_is_found_better() {
    let Some(primary) = durable_server("that a replica counts") else { return };
    let _replica = RedisServer::replica_of(primary.address(), &[]).unwrap();
    let said = idem(&["doctor", &format!("{}?durability=replicas:1", primary.url())]);
    assert_ends(&said, 0, "unclear");
    let [loss] = losses(&said).try_into().unwrap();
    assert!(loss.contains("lose power together") && !said.stdout.contains("BAD"), "{said:?}");
    let _other = RedisServer::replica_of(primary.address(), &[]).unwrap();
    let said = idem(&["doctor", &format!("{}?durability=replicas:1", primary.url())]);
    assert_ends(&said, 0, "unclear");
    assert!(losses(&said)[1].contains("that was not waited for"), "{said:?}");
}

#[test]
fn a_server_that_deletes_records_is_found_out() {
    let Some(server) = durable_server("that an evicting server is found out") else { return };
    server.say("CONFIG SET maxmemory-policy allkeys-lru");
    let said = idem(&["doctor", &server.url()]);
    assert_ends(&said, 1, "not-durable");
    let policy = losses(&said).into_iter().find(|loss| loss.contains("maxmemory-policy is allkeys-lru"));
    assert!(policy.is_some_and(|loss| loss.starts_with("BAD")), "{said:?}");
}

#[test]
fn a_user_without_a_right_is_found_out_and_the_right_is_named() {
    let Some(server) = durable_server("that a missing right is found out") else { return };
    server.say("ACL SETUSER app on >s3cr3t ~ti:{payments}:* resetchannels +@all");
    let doctor = || {
        let mut command = program(&["doctor"]);
        command.env("IDEM_STORE", url(&server).replace("redis://", "redis://app:s3cr3t@"));
        run(command, "")
    };
    let said = doctor();
    assert_ends(&said, 1, "refused");
    assert!(said.stdout.contains("&ti:{payments}:*") && !said.all().contains("s3cr3t"), "{said:?}");
    // It serves, and the namespace of the test is closed to it.
    server.say("ACL SETUSER app &ti:{payments}:*");
    assert_ends(&doctor(), 0, "unclear");
    server.say("ACL SETUSER app allkeys allchannels");
    assert_ends(&doctor(), 0, "one-copy");
}

#[test]
fn a_database_that_is_away_is_not_tested() {
    let nowhere = testkit::dice::free_address();
    assert_ends(&idem(&["doctor", &format!("redis://{nowhere}")]), 3, "not-tested");
}
