//! Sentinels that ask for a password, or do not answer.

use std::net::TcpListener;
use std::time::Duration;

use testkit::dice::{free_address, loopback};
use testkit::process::until;
use tower_idempotency_redis::{RedisBackendBuilder, RedisError};

use crate::lab::{RedisServer, at, builder, claim, complete, get, id, is_done, own_server, pair, put};

/// The primary has one password, the sentinels another one, and a user of their own.
#[tokio::test]
async fn the_login_of_sentinels_is_another_than_that_of_their_servers() {
    let Some(primary) = own_server("that sentinels have a login", &["requirepass n0de"]) else { return };
    let lines = ["requirepass s3ntinel", "sentinel auth-pass main n0de", "user watcher on >w4tcher +@all"];
    let sentinels = [(); 2].map(|()| RedisServer::sentinel_with(primary.address(), &lines).unwrap());
    let [one, other] = [0, 1].map(|number| sentinels[number].address());
    let at = |password: &str| builder(&format!("redis+sentinel://{password}{one},{other}/main"), "n");
    for (number, (user, password)) in (0..).zip([(None, "s3ntinel"), (Some("watcher"), "w4tcher")]) {
        let backend = at(":n0de@").sentinel_login(user, password).open().await.unwrap();
        let write = claim(id(number));
        assert!(is_done(put(&backend, &write).await.unwrap().as_ref(), &write));
        assert!(is_done(get(&backend, id(number)).await.unwrap().as_ref(), &write));
    }
    let apart = at("").password("n0de").sentinel_login(None, "s3ntinel").open().await;
    assert!(apart.is_ok(), "{apart:?}");
    // Without a login, with a wrong one, and with that of the servers for both.
    let with = |password| at(":n0de@").sentinel_login(None, password);
    for refused in [at(":n0de@"), with("wr0ng"), with("n0de")] {
        let says = refusal(refused).await;
        assert!(says.contains(&other.to_string()), "{says}");
        assert!(says.to_ascii_lowercase().contains("auth"), "{says}");
        for password in ["n0de", "wr0ng", "s3ntinel"] {
            assert!(!says.contains(password), "{says}");
        }
    }
    let says = refusal(at("").sentinel_login(None, "s3ntinel")).await;
    assert!(says.contains(&primary.address().to_string()), "{says}");
    // One that is not reached may take the login at the next try.
    let hosts = format!("{},{other}", free_address());
    let away = builder(&format!("redis+sentinel://:n0de@{hosts}/main"), "n").open_within(Duration::from_secs(2));
    let away = away.open().await.unwrap_err();
    assert!(matches!(&away, RedisError::Away { reason, .. } if reason.contains("NOAUTH")), "{away:?}");
}

/// The error is that of a database which is not tried again. One that is tried again is away in the end.
async fn refusal(builder: RedisBackendBuilder) -> String {
    let refused = builder.open_within(Duration::from_secs(60)).open().await.unwrap_err();
    assert!(matches!(refused, RedisError::Refused { .. }), "{refused:?}");
    refused.to_string()
}

/// The first accepts connections, and says nothing.
#[tokio::test]
async fn a_sentinel_that_does_not_answer_keeps_no_other_from_being_asked() {
    let Some(primary) = own_server("that a silent sentinel is passed over", &[]) else { return };
    let sentinel = RedisServer::sentinel_of(primary.address()).unwrap();
    let silent = TcpListener::bind((loopback(), 0)).unwrap();
    let hosts = format!("{},{}", silent.local_addr().unwrap(), sentinel.address());
    let builder = builder(&format!("redis+sentinel://{hosts}/main"), "n");
    let builder = builder.wait_for_connection(Duration::from_secs(6)).open_within(Duration::from_secs(60));
    let (backend, write) = (builder.open().await.unwrap(), claim(id(1)));
    assert!(is_done(put(&backend, &write).await.unwrap().as_ref(), &write));
}

/// It watches a server that is gone, as one does that was cut off during a failover.
#[tokio::test]
async fn a_sentinel_that_names_a_server_which_is_gone_keeps_no_other_from_being_asked() {
    let Some(primary) = own_server("that a sentinel may know no better", &[]) else { return };
    let mut gone = own_server("that a sentinel may know no better", &[]).unwrap();
    let (stale, sentinel) = (RedisServer::sentinel_of(gone.address()), RedisServer::sentinel_of(primary.address()));
    let (stale, sentinel) = (stale.unwrap(), sentinel.unwrap());
    gone.kill();
    let backend = at("sentinel", &[&stale, &sentinel], "/main", "n").open().await.unwrap();
    let write = claim(id(1));
    assert!(is_done(put(&backend, &write).await.unwrap().as_ref(), &write));
}

/// The primary is killed. Two of the three agree that it is gone, and the majority elects the one that promotes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_for_which_three_sentinels_vote_is_followed() {
    let Some((mut primary, replica)) = pair("that a vote of sentinels is followed") else { return };
    let lines = ["sentinel down-after-milliseconds main 500", "sentinel failover-timeout main 5000"];
    let sentinels = [(); 3].map(|()| RedisServer::sentinel_voting(primary.address(), 2, &lines).unwrap());
    let backend = at("sentinel", &[&sentinels[0], &sentinels[1], &sentinels[2]], "/main", "n").open().await.unwrap();
    let claimed = claim(id(1));
    assert!(is_done(put(&backend, &claimed).await.unwrap().as_ref(), &claimed));
    until("the replica has it", async || {
        let [written, has] = [&primary, &replica].map(|server| server.say("DBSIZE"));
        written == has
    })
    .await;
    until("each sentinel knows the others, and the replica", async || {
        let knows_all = |sentinel: &RedisServer| sentinel.say("INFO sentinel").contains("slaves=1,sentinels=3");
        sentinels.iter().all(knows_all)
    })
    .await;
    primary.kill();
    let outcome = complete(id(1), claimed.token);
    until("the next primary has the outcome", async || {
        put(&backend, &outcome).await.is_ok_and(|row| is_done(row.as_ref(), &outcome))
    })
    .await;
    assert!(replica.is("master"));
    let there = builder(&replica.url(), "n").open().await.unwrap();
    assert!(is_done(get(&there, id(1)).await.unwrap().as_ref(), &outcome));
}
