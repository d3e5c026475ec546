//! Sentinels that ask for a password, or do not answer.

use std::net::TcpListener;
use std::time::Duration;

use testkit::dice::loopback;
use tower_idempotency_redis::{RedisBackendBuilder, RedisError};

use crate::lab::{RedisServer, builder, claim, get, id, is_done, own_server, put};

/// The primary has one password, the sentinel another one, and a user of its own.
#[tokio::test]
async fn the_login_of_sentinels_is_another_than_that_of_their_servers() {
    let Some(primary) = own_server("that sentinels have a login", &["requirepass n0de"]) else { return };
    let lines = ["requirepass s3ntinel", "sentinel auth-pass main n0de", "user watcher on >w4tcher +@all"];
    let sentinel = RedisServer::sentinel_with(primary.address(), &lines).unwrap();
    let at = |password: &str| builder(&format!("redis+sentinel://{password}{}/main", sentinel.address()), "n");
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
        assert!(says.contains(&sentinel.address().to_string()), "{says}");
        assert!(says.to_ascii_lowercase().contains("auth"), "{says}");
        for password in ["n0de", "wr0ng", "s3ntinel"] {
            assert!(!says.contains(password), "{says}");
        }
    }
    let says = refusal(at("").sentinel_login(None, "s3ntinel")).await;
    assert!(says.contains(&primary.address().to_string()), "{says}");
}

async fn refusal(builder: RedisBackendBuilder) -> String {
    let refused = builder.open_within(Duration::from_secs(1)).open().await.unwrap_err();
    assert!(matches!(refused, RedisError::Away { .. } | RedisError::Refused { .. }), "{refused:?}");
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
