//! A user that lacks a right.

use tower_idempotency_redis::RedisError;
use tower_idempotency_shared::BackendError;

use crate::lab::{Lab, builder, claim, complete, get, id, is_done, own_server, put};

/// The rights that the guide names, without those of a second durability.
const RIGHTS: &[&str] = &[
    "eval", "evalsha", "time", "info", "get", "getrange", "strlen", "set", "hget", "hset", "zadd", "zrem", "zrange",
    "publish",
];

/// A missing right may stop a script in the middle. What was written then must not count as nothing.
#[tokio::test]
async fn a_right_that_is_taken_away_never_makes_a_write_nothing() {
    let Some(server) = own_server("what a missing right does", &[]) else { return };
    let admin = Lab::new(&server.url()).await;
    let pattern = format!("ti:{{{}}}:*", admin.namespace);
    let all: Vec<String> = RIGHTS
        .iter()
        .chain(&["unlink", "wait", "subscribe", "ping", "hello"])
        .map(|right| format!("+{right}"))
        .collect();
    server.say(&format!("ACL SETUSER u on >p ~{pattern} &{pattern} {}", all.join(" ")));
    let url = server.url().replace("redis://", "redis://u:p@");
    let backend = builder(&url, &admin.namespace).open().await.unwrap();
    let (mut stopped, mut written) = (0, 0);
    for (number, right) in (0..).step_by(2).zip(RIGHTS) {
        let claimed = claim(id(number));
        put(&backend, &claimed).await.unwrap();
        server.say(&format!("ACL SETUSER u -{right}"));
        for write in [claim(id(number + 1)), complete(id(number), claimed.token)] {
            let answer = put(&backend, &write).await;
            let is_there = is_done(get(&admin.backend, write.id).await.unwrap().as_ref(), &write);
            let is_right = match &answer {
                Ok(row) => is_done(row.as_ref(), &write) && is_there,
                Err(BackendError::Uncertain(_)) => true,
                Err(_) => !is_there,
            };
            assert!(is_right, "without {right}: {answer:?}, and in the row: {is_there}");
            stopped += u32::from(answer.is_err());
            written += u32::from(is_there && matches!(answer, Err(BackendError::Uncertain(_))));
        }
        server.say(&format!("ACL SETUSER u +{right}"));
    }
    assert!(stopped > 12, "{stopped} writes were stopped");
    assert!(written > 0, "no script was stopped after its row was written");
    // Waiters poll without it, so it stops nothing.
    server.say("ACL SETUSER u -publish");
    let write = claim(id(1_000));
    assert!(is_done(put(&backend, &write).await.unwrap().as_ref(), &write));
}

/// At opening, the right is named.
#[tokio::test]
async fn the_right_to_publish_is_asked_for_at_opening() {
    let Some(server) = own_server("that a right is named", &[]) else { return };
    server.say("ACL SETUSER u on >p ~ti:{n}:* +@all");
    let url = server.url().replace("redis://", "redis://u:p@");
    let refused = builder(&url, "n").open().await.unwrap_err().to_string();
    assert!(refused.contains("&ti:{n}:*"), "{refused}");
}

/// Releases from 7.2 on have other words for it than Redis 7.0.
#[tokio::test]
async fn an_opening_without_a_right_is_refused_at_once() {
    let Some(server) = own_server("that each right is named", &[]) else { return };
    let url = server.url().replace("redis://", "redis://u:p@");
    // The state of a large row alone is measured.
    for right in RIGHTS.iter().filter(|right| **right != "strlen").chain(&["unlink"]) {
        server.say(&format!("ACL SETUSER u reset on >p ~ti:{{n}}:* &ti:{{n}}:* +@all -{right}"));
        let refused = builder(&url, "n").open().await;
        assert!(matches!(refused, Err(RedisError::Refused { .. })), "without {right}: {refused:?}");
    }
}
