//! A directory of fjall, by each command.

use std::fs;

use serde_json::Value;

use crate::copy::Place;
use crate::doctor_sled::sentence;
use crate::program::{idem, json, program, run};
use crate::service::{Service, id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_knows_a_directory_of_fjall_by_its_name_and_by_its_path() {
    let place = Place::of("fjall");
    place.serves(&[("/done", "k1", "paid"), ("/unsure", "k2", ""), ("/unsure", "k3", "")]).await;
    let path = place.path().display().to_string();
    for store in [&place.name(), &path] {
        assert_eq!(json(0, &["ls", store])["operations"].as_array().unwrap().len(), 3);
        assert_eq!(json(0, &["verify", store])["records"], 3);
        let found = run(program(&["find", store, "--json"]), "account 7\nk1\n");
        assert_eq!(found.json()["state"], "completed", "{found:?}");
        let said = idem(&["doctor", store]);
        let good = ["one-copy", "unclear"].map(sentence);
        assert!(said.code == 0 && good.contains(&said.last_line()), "{}", said.all());
    }
    let [settled, done] = ["k2", "k1"].map(|key| id(key).to_string());
    let fence = |id: &str| json(0, &["show", &place.name(), id])["fence"].as_str().unwrap().to_owned();
    let settle = ["settle", &path, &settled, "--fence", &fence(&settled), "--answer", "-", "--status", "201", "--yes"];
    assert_eq!(run(program(&settle), "paid").code, 0);
    assert_eq!(idem(&["forget", &path, &done, "--fence", &fence(&done), "--yes"]).code, 0);
    assert_eq!(json(1, &["show", &path, &done]), Value::Null);
    place
        .with(async |store| {
            let service = Service::over(store.clone());
            assert_eq!(service.send("/unsure", "k2", "").await, (201, "paid".to_owned(), true));
            assert!(!service.send("/done", "k1", "paid").await.2, "its key is free");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_never_changed() {
    let place = Place::of("fjall");
    place.serves(&[("/done", "k1", "paid")]).await;
    let lock = fs::read(place.path().join("tower-idempotency.lock")).unwrap();
    for command in ["ls", "verify", "doctor"] {
        let refused = idem(&[command, &format!("sled:{}", place.path().display())]);
        assert!(refused.code == 3 && refused.all().contains("fjall"), "{refused:?}");
    }
    assert_eq!(fs::read(place.path().join("tower-idempotency.lock")).unwrap(), lock);
    assert_eq!(json(0, &["verify", &place.name()])["records"], 1);
}
