//! Writes of another process are heard, as long as there is a connection.

use futures_util::{FutureExt as _, StreamExt as _};
use testkit::process::until;
use tower_idempotency::RecordId;
use tower_idempotency_shared::{Backend as _, Clocks};

use crate::lab::{Lab, claim, complete, id, own_server};

#[tokio::test]
async fn an_end_is_heard_elsewhere_also_after_the_listener_s_connection_was_killed() {
    let Some(server) = own_server("that changes are heard", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let listens = lab.another().await;
    let mut changes = listens.changes();
    let (mut number, mut before) = (0, 0);
    for kills in 0..3 {
        // The first ones may come while nothing listens.
        until("a change is heard", async || {
            let claimed = claim(id(number));
            number += 1;
            lab.put(&claimed).await.unwrap();
            lab.put(&complete(claimed.id, claimed.token)).await.unwrap();
            let since: Vec<RecordId> = (before..number).map(id).collect();
            std::iter::from_fn(|| changes.next().now_or_never().flatten()).any(|heard| since.contains(&heard))
        })
        .await;
        number += 4;
        before = number;
        // All rows of a put are in one message, without its claims.
        let claims = [4, 3, 2].map(|before| claim(id(number - before)));
        lab.backend.put(Clocks::default(), &claims).await.unwrap();
        let ends = claims.each_ref().map(|claimed| complete(claimed.id, claimed.token));
        lab.backend.put(Clocks::default(), &[ends.as_slice(), &[claim(id(number - 1))]].concat()).await.unwrap();
        let mut heard = Vec::new();
        until("the last end is heard", async || {
            heard.extend(std::iter::from_fn(|| changes.next().now_or_never().flatten()));
            heard.contains(&claims[2].id)
        })
        .await;
        heard.retain(|heard| (number - 4..number).map(id).any(|id| id == *heard));
        assert_eq!(heard, claims.each_ref().map(|claimed| claimed.id));
        let killed = server.say("CLIENT KILL TYPE pubsub");
        assert!(killed.starts_with(':') && !killed.starts_with(":0"), "after {kills} kills: {killed}");
    }
}
