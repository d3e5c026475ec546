//! Copies to and from Redis that are refused, and what they leave. `answers.rs` has those that are made.

use tower_idempotency::internals::Records as _;
use tower_idempotency::store::Store as _;
use tower_idempotency::{AnyStore, Fence, SledStore};
use tower_idempotency_redis::RedisBackend;
use tower_idempotency_shared::{Backend as _, Clocks};

use super::{HOUR, Place, claim, damaged, ids};
use crate::program::{idem, json};
use crate::redis::{builder, durable_server, opened, url};
use crate::service::{Service, id};

/// The number of servers that have a lease.
async fn leases(backend: &RedisBackend) -> usize {
    let answer = backend.sessions(Clocks::default()).await.unwrap();
    answer.rows.iter().filter(|row| row.until.is_some_and(|until| until > answer.now)).count()
}

/// A lease that is left would keep others away until it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_in_use_is_not_copied_and_no_command_leaves_a_lease() {
    let Some(server) = durable_server("that a namespace in use is refused") else { return };
    let url = url(&server);
    let store = opened(&url).await;
    let service = Service::over(store.clone());
    service.send("/done", "k1", "paid").await;
    service.send("/unsure", "k2", "").await;
    let (from, to) = (Place::of("sled"), Place::of("sled"));
    from.serves(&[("/done", "k3", "paid")]).await;
    for (from, to) in [(&url, &to.name()), (&from.name(), &url)] {
        let refused = idem(&["copy", from, to, "--wait=1ms"]);
        assert!(refused.code == 3 && refused.stdout.is_empty(), "{refused:?}");
        assert!(refused.stderr.contains("is in use: the server with the session"), "{refused:?}");
    }
    let session = store.session().short();
    assert!(idem(&["copy", &url, &to.name()]).stderr.contains(&session), "the server is named");
    store.close().await.unwrap();
    let backend = builder(&url).open().await.unwrap();
    assert_eq!(leases(&backend).await, 0);
    let [k1, k2] = ["k1", "k2"].map(|key| id(key).to_string());
    let fence = |key: &str| json(0, &["show", &url, key])["fence"].as_str().unwrap().to_owned();
    let [of_k1, of_k2] = [&k1, &k2].map(|key| fence(key));
    for command in [
        &["ls", &url][..],
        &["export", &url],
        &["verify", &url],
        &["settle", &url, &k2, "--fence", &of_k2, "--release", "--yes"],
        &["forget", &url, &k1, "--fence", &of_k1, "--yes"],
        &["copy", &from.name(), &url],
        &["copy", &url, &to.name()],
    ] {
        let said = idem(command);
        assert_eq!((said.code, leases(&backend).await), (0, 0), "{said:?}");
    }
    // A copy that is refused leaves none either: here the engine of the new store is missing.
    let refused = idem(&["copy", &url, &Place::of("sled").path().display().to_string()]);
    assert_eq!((refused.code, leases(&backend).await), (2, 0), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_not_copied_to_itself_nor_to_where_records_are_deleted() {
    let Some(server) = durable_server("that a namespace is not copied to itself") else { return };
    let url = url(&server);
    let store = opened(&url).await;
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    let same = format!("{}/0?durability=memory&namespace=payments", server.url());
    let refused = idem(&["copy", &url, &same]);
    assert!(refused.code == 2 && refused.stderr.contains("the same store"), "{refused:?}");
    let other = format!("{}?namespace=other", server.url());
    server.say("CONFIG SET maxmemory-policy allkeys-lru");
    let refused = idem(&["copy", &url, &other]);
    assert!(refused.code == 3 && refused.stderr.contains("maxmemory-policy is allkeys-lru"), "{refused:?}");
    // The services may have accepted it, so operators see what is there, and move it.
    assert_eq!(json(0, &["ls", &url])["operations"].as_array().unwrap().len(), 1);
    assert_eq!(json(0, &["copy", &url, &Place::of("sled").name()])["copied"], 1);
    server.say("CONFIG SET maxmemory-policy noeviction");
    assert_eq!(json(0, &["copy", &url, &other])["copied"], 1);
}

/// A later release has written a row, or a hand has edited it. The copy names it, and its key stays refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_136_a_row_that_this_release_can_t_read_is_named_and_not_left_out_of_a_copy() {
    let Some(server) = durable_server("that rows which can't be read are named") else { return };
    let url = url(&server);
    let store = opened(&url).await;
    let service = Service::over(store.clone());
    for key in ["k1", "k2", "k3", "k4"] {
        service.send("/done", key, "paid").await;
    }
    store.close().await.unwrap();
    let edits = [("k1", "SETRANGE {} 0 2"), ("k2", "SETRANGE {} 17 x"), ("k3", "SET {} cut")];
    for (key, edit) in edits {
        let escaped: String = id(key).as_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        let said = server.say(&edit.replace("{}", &format!("\"ti:{{payments}}:r:{escaped}\"")));
        assert!(said.starts_with(':') || said.starts_with("+OK"), "{said}");
    }
    let expected = ids(&["k1", "k2", "k3"]);
    assert_eq!(damaged(&json(1, &["verify", &url])), expected);
    let to = Place::of("sled");
    let copied = json(1, &["copy", &url, &to.name()]);
    assert_eq!((damaged(&copied), &copied["copied"]), (expected.clone(), &4.into()), "{copied:#}");
    let shown = idem(&["show", &url, &expected[0]]);
    assert!(shown.stdout.contains("which this release does not know"), "{shown:?}");
    // Neither store runs a key of which it is unknown what has happened.
    let refuses = async |store: AnyStore| {
        let service = Service::over(store.clone());
        for key in ["k1", "k2", "k3"] {
            let (status, answer, _) = service.send("/done", key, "paid").await;
            assert!(status >= 400, "{key}: {status} {answer}");
        }
        assert_eq!(service.send("/done", "k4", "paid").await, (201, "paid".to_owned(), true));
        store.close().await.unwrap();
    };
    refuses(AnyStore::new(opened(&url).await)).await;
    to.with(async |store| refuses(store.clone()).await).await;
}

/// No call lists a released row, whose fence may be ahead of the clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fences_go_on_above_those_of_keys_that_were_released_in_redis() {
    let Some(server) = durable_server("that fences go on after a copy") else { return };
    let (from, url) = (Place::of("sled"), url(&server));
    let now = from.with(async |store| store.now()).await;
    let ahead = Fence(now.plus(HOUR).as_millis() * 1_000);
    let store = SledStore::builder().fences_above(ahead).open(from.path()).unwrap();
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    assert_eq!(json(0, &["copy", &from.name(), &url])["copied"], 1);
    let k2 = id("k2").to_string();
    for _ in 0..3 {
        let store = opened(&url).await;
        Service::over(store.clone()).send("/unsure", "k2", "").await;
        store.close().await.unwrap();
        let fence = json(0, &["show", &url, &k2])["fence"].as_str().unwrap().to_owned();
        assert_eq!(idem(&["settle", &url, &k2, "--fence", &fence, "--release", "--yes"]).code, 0);
    }
    let backend = builder(&url).open().await.unwrap();
    let released = backend.get(Clocks::default(), &[id("k2")]).await.unwrap().rows.remove(0).unwrap().fence;
    assert!(ahead < released, "{released} is ahead of the clock");
    let later = url.replace("namespace=payments", "namespace=later");
    assert_eq!(json(0, &["copy", &url, &later])["copied"], 1);
    let store = AnyStore::new(opened(&later).await);
    assert!(released < claim(&store, id("k3")).await.fence);
    store.close().await.unwrap();
}
