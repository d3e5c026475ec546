//! A directory belongs to the engine that made it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use testkit::lab::disk::Disk;
use tower_idempotency::store::OpenError;
use tower_idempotency::{FjallStore, SledStore};

use super::on_disk::{Place, run};

/// Refuses the directory of another engine's store by its name, and changes no file. `lock` is what the lock file says.
fn refuse_as<D: Disk>(path: &Path, found: &str, lock: &str) {
    fs::write(path.join("tower-idempotency.lock"), lock).unwrap();
    let before = files(path);
    let error = D::open(path).unwrap_err();
    assert!(
        matches!(&error, OpenError::OtherEngine { found: other, engine, .. } if other == found && *engine == D::NAME)
    );
    assert!(error.to_string().contains(found) && error.to_string().contains(D::NAME), "{error}");
    assert_eq!(files(path), before, "no file has changed");
}

/// Returns the files in `path`, with what is in them.
fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let file = entry.unwrap().path();
        if file.is_dir() {
            files.extend(self::files(&file));
        } else {
            let content = fs::read(&file).unwrap();
            files.insert(file, content);
        }
    }
    files
}

// Seeded fault: the engine that the lock file names is not compared.
#[tokio::test]
async fn a_directory_of_another_engine_is_refused_by_its_name_and_left_as_it_is() {
    let (sled, fjall) = (Place::new(), Place::new());
    let store: SledStore = sled.open();
    run(&store, "k", Bytes::from("recorded")).await;
    store.close().await.unwrap();
    let store: FjallStore = fjall.open();
    run(&store, "k", Bytes::from("recorded")).await;
    store.close().await.unwrap();
    refuse_as::<FjallStore>(&sled.path, "sled", "complete\nsled\n");
    refuse_as::<SledStore>(&fjall.path, "fjall", "complete\nfjall\n");
    // As stores were marked when there was only sled.
    refuse_as::<FjallStore>(&sled.path, "sled", "complete");
    let store: SledStore = sled.open();
    assert_eq!(store.len(), 1);
}
