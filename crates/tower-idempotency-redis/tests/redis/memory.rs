//! A server whose memory is full.

use std::time::Duration;

use tower_idempotency::engine::EffectError;
use tower_idempotency::store::{Health, Store as _};
use tower_idempotency::{Fingerprint, Key, Once, RecordId, engine::OnceError};
use tower_idempotency_redis::RedisStore;
use tower_idempotency_shared::{Backend as _, BackendError, Clocks};

use crate::lab::{Lab, claim, complete, id, is_done, own_server};

#[tokio::test]
async fn without_memory_new_keys_are_refused_and_all_else_is_done() {
    let Some(server) = own_server("what is done without memory", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let (running, done) = (claim(id(1)), claim(id(2)));
    lab.put(&running).await.unwrap();
    lab.put(&done).await.unwrap();
    lab.put(&complete(id(2), done.token)).await.unwrap();
    server.say("CONFIG SET maxmemory 1");
    assert_eq!(lab.backend.full(), None, "it was not asked yet");
    let refused = lab.put(&claim(id(3))).await;
    assert!(matches!(refused, Err(BackendError::Full("maxmemory"))), "{refused:?}");
    assert_eq!(lab.backend.full(), Some("maxmemory"));
    // A run ends, and a key with a record is read.
    let outcome = complete(id(1), running.token);
    assert!(is_done(lab.put(&outcome).await.unwrap().as_ref(), &outcome));
    assert!(lab.get(id(2)).await.unwrap().is_some() && lab.get(id(3)).await.unwrap().is_none());
    // A put with a claim is refused as a whole. The store then sends each write by itself.
    let (new, again) = (claim(id(4)), complete(id(1), outcome.token));
    let refused = lab.backend.put(Clocks::default(), &[again.clone(), new]).await;
    assert!(matches!(refused, Err(BackendError::Full("maxmemory"))), "{refused:?}");
    assert!(is_done(lab.get(id(1)).await.unwrap().as_ref(), &outcome));
    assert!(is_done(lab.put(&again).await.unwrap().as_ref(), &again));
    server.say("CONFIG SET maxmemory 0");
    lab.backend.guarantee().await.unwrap();
    assert_eq!(lab.backend.full(), None);
    assert!(lab.put(&claim(id(3))).await.unwrap().is_some());
}

/// The first refusal does not keep a known key from its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_memory_is_full_and_not_away_and_replays() {
    let Some(server) = own_server("the health of a store without memory", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let store = RedisStore::builder().call_timeout(Duration::from_secs(5)).open(lab.another().await).await.unwrap();
    let once = Once::new(store.clone());
    let run = async |key: &str| {
        let effect = |_context| async { Ok::<_, EffectError<std::io::Error>>("done".to_owned()) };
        once.run(RecordId::new(None, &Key::new(key).unwrap()), Fingerprint::of(b"a message"), effect).await
    };
    assert!(!run("known").await.unwrap().replayed);
    server.say("CONFIG SET maxmemory 1");
    for key in ["1", "2", "3", "4", "5"] {
        assert!(matches!(run(key).await, Err(OnceError::Full)));
    }
    assert!(matches!(store.health(), Health::Full { limit: "maxmemory" }), "{:?}", store.health());
    assert!(run("known").await.unwrap().replayed);
    server.say("CONFIG SET maxmemory 0");
    store.backend().guarantee().await.unwrap();
    assert!(matches!(store.health(), Health::Good), "{:?}", store.health());
    assert!(!run("1").await.unwrap().replayed);
}
