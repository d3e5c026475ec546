//! The operator chooses the store of the records by a URL. An impossible choice is refused at the start, with a reason.

use tempfile::tempdir;
use testkit::Call;
use testkit::payment_server::Setup;

use super::ENGINES;

/// The output of a server that does not start.
pub(crate) async fn refusal(setup: &Setup, code: i32) -> String {
    let launched = setup.launch();
    let log = launched.log.clone();
    let Err(why) = launched.listening().await else { panic!("it starts: {setup:?}") };
    let said = log.whole().await;
    assert!(why.contains(&format!("exit status: {code}")) && !said.contains("panicked"), "{why}, {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_understood_is_refused_and_its_password_is_not_repeated() {
    let directory = tempdir().unwrap();
    for url in
        ["psotgres://u:s3cr3t@h/d", "postgres:u:s3cr3t@h/d", "redos://:s3cr3t@h", "sled://x", "memory:x", "other"]
    {
        let said = refusal(&Setup::new(&directory).with(&format!("--store {url}")), 1).await;
        assert!(said.contains("give sled, sled:PATH, fjall, fjall:PATH, memory, postgres://"), "{said}");
        assert!(!said.contains("s3cr3t"), "{said}");
    }
    assert!(!directory.path().join("data").exists(), "nothing was opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_and_a_namespace_are_for_a_store_that_servers_share() {
    let directory = tempdir().unwrap();
    let elsewhere = format!("sled:{}", directory.path().join("elsewhere").display());
    for store in ["sled", &elsewhere, "memory", "memory:"] {
        for option in ["--lease 30", "--namespace other"] {
            let said = refusal(&Setup::new(&directory).with(&format!("--store {store} {option}")), 1).await;
            let (name, _) = option.split_once(' ').unwrap();
            assert!(said.contains(&format!("{name} is for a store that servers share")), "{said}");
        }
    }
    for lease in ["0", "-1", "1.5", "86401"] {
        assert!(refusal(&Setup::new(&directory).with(&format!("--lease={lease}")), 2).await.contains("--lease"));
    }
    assert!(!directory.path().join("data").exists(), "nothing was opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_store_that_is_not_opened_are_refused() {
    let directory = tempdir().unwrap();
    let settings = directory.path().join("settings.toml");
    let stores: Vec<_> = ENGINES.iter().chain(&["memory"]).collect();
    let others = stores.iter().cycle().skip(1);
    for (store, other) in stores.iter().zip(others).chain(stores.iter().map(|store| (store, &&"postgres"))) {
        let config = format!("--store {store} --config {}", settings.display());
        std::fs::write(
            &settings,
            format!(
                "[{store}]\n[{other}]\n{}",
                if **other == "postgres" { "connections = 2\n" } else { "max_bytes = 1\n" }
            ),
        )
        .unwrap();
        let said = refusal(&Setup::new(&directory).with(&config), 1).await;
        assert!(said.contains(&format!("a section [{other}]")), "{said}");
    }
    assert!(!directory.path().join("data").exists(), "nothing was opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_is_wrong_is_named_with_its_line_and_the_forms_that_are_allowed() {
    let directory = tempdir().unwrap();
    let settings = directory.path().join("settings.toml");
    std::fs::write(&settings, "[layer]\n# in hours?\nretention = 48\n").unwrap();
    let setup = Setup::new(&directory).with(&format!("--config {}", settings.display()));
    let said = refusal(&setup, 1).await;
    for part in ["line 3", "retention = 48", "expected a duration: write it as \"24h\""] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!directory.path().join("data").exists(), "nothing was opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_existing_a_server_whose_volume_is_not_mounted_does_not_start() {
    let directory = tempdir().unwrap();
    let said = refusal(&Setup::new(&directory).with("--existing"), 1).await;
    assert!(said.contains("there is no store") && said.contains("volume"), "{said}");
    assert!(!directory.path().join("data").exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn atomic_needs_charges_and_records_in_one_database() {
    let directory = tempdir().unwrap();
    let elsewhere = ENGINES.iter().map(|engine| format!("{engine}:{}", directory.path().join(engine).display()));
    for store in elsewhere.chain(["memory".to_owned()]) {
        let said = refusal(&Setup::new(&directory).with(&format!("--atomic --store {store}")), 1).await;
        assert!(said.contains("--atomic needs") && said.contains("--store sled, fjall or postgres://"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_may_be_in_another_directory_than_the_charges() {
    for engine in ENGINES {
        let directory = tempdir().unwrap();
        let records = directory.path().join("records");
        let setup = Setup::new(&directory).with(&format!("--store {engine}:{}", records.display()));
        let call = Call::charge("apart", "tok_visa");
        let server = setup.start();
        let first = server.send(&call).await;
        let log = server.log.clone();
        server.stop().await;
        let log = log.whole().await;
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert!(warnings.iter().all(|line| line.contains("the store is new")) && warnings.len() == 2, "{log}");
        assert!(records.is_dir() && setup.data.is_dir());
        // The charges are lost, and the records are still there.
        std::fs::remove_dir_all(&setup.data).unwrap();
        let server = setup.start();
        let replay = server.send(&call).await;
        assert_eq!((replay.is_replay(), &replay.body), (true, &first.body));
        assert!(server.charges().await.is_empty());
        assert_eq!(server.get("/readyz").await.json()["ready"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sled_with_the_path_of_the_charges_is_the_same_as_sled() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory);
    let call = Call::charge("same", "tok_visa");
    let server = setup.start();
    server.send(&call).await;
    server.stop().await;
    let server = setup.clone().with(&format!("--atomic --store sled:{}", setup.data.display())).start();
    assert!(server.send(&call).await.is_replay());
    assert_eq!(server.charges().await.len(), 1);
}
