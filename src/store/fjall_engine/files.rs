//! Examines the files of fjall without which it would begin anew, or open without some tables.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::journal::{self, KEYSPACES};
use crate::store::OpenError;
use crate::store::embedded::files::directory;

/// The file that names fjall's version. It stays as long as the database.
pub(super) const VERSION: &str = "version";
/// The file that names the tables of a keyspace that are in use.
const CURRENT: &str = "current";

/// Refuses a database that was in use and lacks files without which fjall would begin anew, or delete keyspaces, or in
/// which they are damaged.
pub(super) fn require_files(path: &Path) -> Result<(), OpenError> {
    directory::require_files(path, &[VERSION, "keyspaces/0/current"])?;
    if journal::numbers(path).map_err(directory::io_error("reading", path))?.is_empty() {
        // fjall would begin its sequence numbers anew, and at the next opening drop what it wrote under them.
        return Err(directory::broken(path, "it has no journal"));
    }
    for keyspace in keyspaces(path)? {
        // A keyspace that was about to be made has no tables yet.
        let has_tables = fs::read_dir(keyspace.join("tables")).is_ok_and(|mut tables| tables.next().is_some());
        let current = keyspace.join(CURRENT);
        match fs::read(&current) {
            Ok(current) => check_manifest(path, &keyspace, &current)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(directory::io_error("reading", &current)(error));
            }
            Err(_) if has_tables => {
                let file = current.strip_prefix(path).unwrap_or(&current).display();
                return Err(directory::broken(path, &format!("its file {file} is missing")));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Refuses a database that lacks one of `keyspaces`, to which its journals write: fjall deletes what is left of it, and
/// leaves out these writes.
pub(super) fn require_keyspaces(path: &Path, keyspaces: &BTreeSet<u64>) -> Result<(), OpenError> {
    let file = |number: &u64| format!("{KEYSPACES}/{number}/{CURRENT}");
    keyspaces.iter().try_for_each(|number| directory::require_files(path, &[&file(number)]))
}

/// Makes the names of the keyspaces' files durable. A killed process may have left one with the operating system that
/// fjall takes for durable: it then removes journals, without which that file must not be lost.
pub(super) fn sync_keyspaces(path: &Path) -> Result<(), OpenError> {
    match keyspaces(path) {
        // The opening makes them.
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        keyspaces => keyspaces?.iter().try_for_each(|keyspace| directory::sync_one(keyspace)),
    }
}

/// Returns the directories of the keyspaces.
fn keyspaces(path: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let read = fs::read_dir(path.join(KEYSPACES)).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    read.map_err(directory::io_error("reading", path))
}

/// Refuses a keyspace whose manifest is not the one that was written. fjall does not check it: with another one it
/// opens without some tables, or ends the process. `current` is the manifest's number (8 bytes), its XXH3 (16), and a
/// zero.
fn check_manifest(path: &Path, keyspace: &Path, current: &[u8]) -> Result<(), OpenError> {
    let (number, digest) = current.split_first_chunk().unzip();
    let name = keyspace.join(format!("v{}", u64::from_le_bytes(*number.unwrap_or(&[0; 8]))));
    let digest = digest.and_then(|digest: &[u8]| digest.first_chunk()).map(|digest| u128::from_le_bytes(*digest));
    match fs::read(&name) {
        Ok(manifest) if digest == Some(xxh3_128(&manifest)) => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(directory::io_error("reading", &name)(error)),
        _ => Err(directory::broken(path, &format!("{} is missing or damaged", name.display()))),
    }
}
