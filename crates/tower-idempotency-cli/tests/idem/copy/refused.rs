//! A copy that would lose or overwrite something is refused, or says so.

use testkit::postgres::own_server;
use testkit::process::until;
use tower_idempotency::SledStore;
use tower_idempotency::store::Store as _;

use super::{Place, damaged, ids, listed};
use crate::postgres::{client, died_in_a_run, served};
use crate::program::{idem, json, program, run};
use crate::service::{Closed, Service, id};

const REQUESTS: [(&str, &str, &str); 3] = [("/done", "k1", "paid"), ("/done", "k2", "paid too"), ("/unsure", "k3", "")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_there_is_never_overwritten() {
    let (from, to) = (Place::of("sled"), Place::of("fjall"));
    from.serves(&REQUESTS).await;
    to.serves(&[("/done", "k1", "other"), ("/done", "own", "")]).await;
    let said = json(1, &["copy", &from.name(), &to.name()]);
    assert_eq!(said["not_the_same"], serde_json::json!(ids(&["k1"])), "{said:#}");
    assert_eq!((&said["copied"], &said["others"], &said["complete"]), (&2.into(), &1.into(), &false.into()));
    let text = idem(&["copy", &from.name(), &to.name()]);
    let expected = format!(
        "{}  is not the same in the new store, where nothing was overwritten\n\
         3 records were read: 0 were copied, 2 were there already, 0 expired meanwhile, 0 can't be read, 1 are not the \
         same\n\
         the old store has 3 records: 2 completed, 1 interrupted\n\
         the new store has 4 records: 3 completed, 1 interrupted\n\
         1 of them are its own\n\
         The copy is NOT complete: see the records that are named above before a service uses the new store.\n",
        id("k1")
    );
    assert_eq!((text.code, text.stdout), (1, expected));
    to.with(async |store| {
        let service = Service::over(store.clone());
        assert_eq!(service.send("/done", "k1", "other").await, (201, "other".to_owned(), true));
        assert_eq!(service.send("/done", "k2", "paid too").await, (201, "paid too".to_owned(), true));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_a_process_has_open_is_refused() {
    let (from, to) = (Place::of("sled"), Place::of("fjall"));
    from.serves(&REQUESTS).await;
    from.with(async |_| {
        let refused = idem(&["copy", &from.name(), &to.name()]);
        assert!(refused.code == 3 && refused.stderr.contains("is held open by another process"), "{refused:?}");
        assert!(!to.path().exists(), "nothing is made for a copy that is refused");
    })
    .await;
    to.with(async |_| assert_eq!(idem(&["copy", &from.name(), &to.name()]).code, 3)).await;
    assert_eq!(json(0, &["copy", &from.name(), &to.name()])["copied"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_a_server_uses_is_refused() {
    let Some(server) = own_server("that a database in use is refused", &[]) else { return };
    let (url, store) = served(&server).await;
    let service = Service::over(store.clone());
    service.send("/done", "k1", "paid").await;
    let (from, to) = (Place::of("sled"), Place::of("sled"));
    from.serves(&REQUESTS).await;
    for (from, to) in [(&url, &to.name()), (&from.name(), &url)] {
        for wait in [None, Some("--wait=1ms")] {
            let refused = idem(&["copy", from, to].into_iter().chain(wait).collect::<Vec<_>>());
            assert!(refused.code == 3 && refused.stdout.is_empty(), "{refused:?}");
            assert!(refused.stderr.contains("is in use: the server with the session"), "{refused:?}");
        }
    }
    // The server dies in a run: its lease is over, and nothing has seen yet that it died.
    let waiting = tokio::spawn({
        let service = service.clone();
        async move { service.send("/waits", "k2", "").await }
    });
    service.gate.arrival().await;
    let over = "UPDATE idempotency.record SET until = now() - interval '1 s', token = gen_random_uuid() WHERE kind = 6";
    let refused = loop {
        client(&server).await.batch_execute(over).await.unwrap();
        let refused = idem(&["copy", &url, &to.name()]);
        // The server may have renewed its lease meanwhile.
        if !refused.stderr.contains("is in use") {
            break refused;
        }
    };
    assert!(refused.code == 3 && refused.stderr.contains("1 runs show as under way"), "{refused:?}");
    service.gate.open();
    waiting.await.unwrap();
    store.close().await.unwrap();
    let said = json(0, &["copy", &url, &to.name()]);
    assert_eq!(said["copied"], 2, "{said:#}");
}

/// A lease that is left would keep others away until it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_leaves_a_lease_and_a_copy_waits_for_one_that_is_left() {
    let Some(server) = own_server("that no lease is left", &[]) else { return };
    let (url, store) = served(&server).await;
    let service = Service::over(store.clone());
    service.send("/done", "k1", "paid").await;
    service.send("/unsure", "k2", "").await;
    store.close().await.unwrap();
    let client = client(&server).await;
    let leases = async || {
        let sql = "SELECT count(*) FROM idempotency.record WHERE kind = 6 AND until > clock_timestamp()";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(leases().await, 0);
    let [k1, k2] = ["k1", "k2"].map(|key| id(key).to_string());
    let fence = |key: &str| json(0, &["show", &url, key])["fence"].as_str().unwrap().to_owned();
    let [of_k1, of_k2] = [&k1, &k2].map(|key| fence(key));
    let (from, to) = (Place::of("fjall"), Place::of("sled"));
    from.serves(&[("/done", "k3", "paid")]).await;
    for command in [
        &["ls", &url][..],
        &["show", &url, &k1],
        &["verify", &url],
        &["settle", &url, &k2, "--fence", &of_k2, "--release", "--yes"],
        &["forget", &url, &k1, "--fence", &of_k1, "--yes"],
        &["copy", &from.name(), &url],
        &["copy", &url, &to.name()],
    ] {
        let said = idem(command);
        assert_eq!((said.code, leases().await), (0, 0), "{said:?}");
    }
    let found = run(program(&["find", &url]), "account 7\nk3\n");
    assert_eq!((found.code, leases().await), (0, 0), "{found:?}");
    // A copy that is refused leaves none either: here the engine of the new store is missing.
    let refused = idem(&["copy", &url, &Place::of("sled").path().display().to_string()]);
    assert_eq!((refused.code, leases().await), (2, 0), "{refused:?}");
    let killed =
        "INSERT INTO idempotency.record (namespace, id, token, fence, kind, began, since, until, expires, state)
        SELECT namespace, sha256('killed'), gen_random_uuid(), 1, 6, began, since,
            clock_timestamp() + interval '6 s', expires, ''
        FROM idempotency.record WHERE kind = 3 LIMIT 1";
    assert_eq!(client.execute(killed, &[]).await.unwrap(), 1);
    let refused = idem(&["copy", &url, &to.name()]);
    assert_ne!(refused.code, 0, "its lease is not over: {refused:?}");
    let copied = idem(&["copy", &url, &to.name(), "--wait=60s"]);
    assert_eq!(copied.code, 0, "{copied:?}");
}

/// It has its lease as soon as the copy has looked who uses the namespace, and may have changed records since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_during_a_copy_is_named() {
    let Some(server) = own_server("that a server is noticed during a copy", &[]) else { return };
    let (url, store) = served(&server).await;
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    let client = client(&server).await;
    let comes = "CREATE FUNCTION come() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO idempotency.record (namespace, id, token, fence, kind, began, since, until, expires, state)
             VALUES (NEW.namespace, sha256('late'), gen_random_uuid(), 1, 6, now(), now(), now() + interval '1 hour',
                 now() + interval '1 hour', '');
             RETURN NULL;
         END $$;
         CREATE TRIGGER come AFTER INSERT ON idempotency.record
             FOR EACH ROW WHEN (NEW.kind = 6 AND NEW.id <> sha256('late')) EXECUTE FUNCTION come()";
    client.batch_execute(comes).await.unwrap();
    let (from, to) = (Place::of("fjall"), Place::of("sled"));
    from.serves(&[("/done", "k3", "paid")]).await;
    for (from, to) in [(&from.name(), &url), (&url, &to.name())] {
        let refused = idem(&["copy", from, to]);
        assert!(refused.code == 3 && refused.stdout.is_empty(), "{refused:?}");
        assert!(refused.stderr.contains("was used during the copy"), "{refused:?}");
        client.batch_execute("DELETE FROM idempotency.record WHERE id = sha256('late')").await.unwrap();
    }
}

/// It waits until it has seen that the server has died.
#[test]
fn a_run_whose_server_has_died_is_copied_as_interrupted_after_a_wait() {
    let Some(server) = own_server("that a copy waits for the death of a server", &[]) else { return };
    let (url, to) = (died_in_a_run(&server), Place::of("sled"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let copied = async || idem(&["copy", &url, &to.name(), "--wait=12s"]).code == 0;
    runtime.block_on(until("a copy", copied));
    let [operation] = listed(&to.name()).try_into().unwrap();
    assert_eq!((&operation["id"], &operation["state"]), (&id("k1").to_string().into(), &"interrupted".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_not_copied_to_itself() {
    let from = Place::of("sled");
    from.serves(&REQUESTS).await;
    let path = from.path().display().to_string();
    for to in [from.name(), path.clone(), format!("fjall:{path}/../store")] {
        let refused = idem(&["copy", &from.name(), &to]);
        assert!(refused.code == 2 && refused.stderr.contains("the same store"), "{refused:?}");
    }
    let Some(server) = own_server("that a database is not copied to itself", &["listen_addresses=0.0.0.0"]) else {
        return;
    };
    let (url, store) = served(&server).await;
    store.close().await.unwrap();
    let by_name = url.replace(&server.address().ip().to_string(), "localhost");
    let refused = idem(&["copy", &url, &by_name]);
    assert!(refused.code == 2 && refused.stderr.contains("the same store"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_store_is_named_with_its_engine_and_an_old_one_need_not_be() {
    let (from, to) = (Place::of("fjall"), Place::of("fjall"));
    from.serves(&REQUESTS).await;
    let [old, new] = [&from, &to].map(|place| place.path().display().to_string());
    let refused = idem(&["copy", &old, &new]);
    assert!(refused.code == 2 && refused.stderr.contains("name the engine"), "{refused:?}");
    assert_eq!(json(0, &["copy", &old, &to.name()])["copied"], 3);
    for command in ["ls", "verify"] {
        for name in [&new, &to.name()] {
            assert_eq!(idem(&[command, name]).code, 0, "{command} {name}");
        }
    }
    let other = idem(&["ls", &format!("sled:{new}")]);
    assert!(other.code == 3 && other.stderr.contains("fjall"), "{other:?}");
    let missing = idem(&["copy", &format!("{old}-missing"), &to.name()]);
    assert!(missing.code == 3 && missing.stderr.contains("there is no store"), "{missing:?}");
}

/// A record that the new store can't read is no copy, although it was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_damaged_in_the_new_store_is_not_complete() {
    let long = "x".repeat(10_000);
    let (from, to) = (Place::of("fjall"), Place::of("sled"));
    from.serves(&[("/done", "k1", "paid"), ("/done", "k2", &long)]).await;
    json(0, &["copy", &from.name(), &to.name()]);
    let store = SledStore::open(to.path()).unwrap();
    let tree = store.db().unwrap().open_tree("tower-idempotency").unwrap();
    let prefix = [b"c", id("k2").as_bytes().as_slice()].concat();
    let (key, mut value) = tree.scan_prefix(prefix).last().unwrap().unwrap();
    value[9] ^= 1;
    tree.insert(key, value).unwrap();
    store.sync().await.unwrap();
    drop(tree);
    store.close().await.unwrap();
    let again = idem(&["copy", &from.name(), &to.name()]);
    assert!(again.code == 3 && again.stderr.contains("is damaged"), "{again:?}");
}

/// The key of a record that can't be read is refused in the new store as it was in the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_named_and_its_key_stays_refused() {
    let long = "x".repeat(10_000);
    let closed = Closed::after(&[("/done", "k1", "paid"), ("/done", "k2", &long), ("/done", "k3", &long)]).await;
    closed.damage(&[(b"r", id("k1")), (b"c", id("k3"))]).await;
    let to = Place::of("fjall");
    for (copied, already) in [(3, 0), (0, 3)] {
        let said = json(1, &["copy", &closed.name(), &to.name()]);
        assert_eq!((damaged(&said), &said["not_the_same"]), (ids(&["k1", "k3"]), &serde_json::json!([])), "{said:#}");
        assert_eq!((&said["copied"], &said["already_there"]), (&copied.into(), &already.into()), "{said:#}");
        let text = idem(&["copy", &closed.name(), &to.name()]).stdout;
        for one in said["damaged"].as_array().unwrap() {
            let [id, reason] = ["id", "reason"].map(|name| one[name].as_str().unwrap());
            let line = format!("{id}  can't be read, so the new store refuses its key: {reason}");
            assert!(!reason.is_empty() && text.lines().any(|one| one == line), "{line}: {text}");
        }
    }
    to.with(async |store| {
        let service = Service::over(store.clone());
        for (key, body) in [("k1", "paid"), ("k3", &*long)] {
            let (status, answer, _) = service.send("/done", key, body).await;
            assert!((400..500).contains(&status), "{status} {answer}");
        }
        assert_eq!(service.send("/done", "k2", &long).await, (201, long.clone(), true));
    })
    .await;
    let listed = json(0, &["ls", &to.name(), "--state", "interrupted"]);
    assert_eq!(listed["operations"].as_array().unwrap().len(), 2, "operators settle them: {listed:#}");
}
