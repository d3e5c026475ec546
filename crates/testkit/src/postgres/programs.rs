//! The programs of a server, and the user that runs them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The user that the server runs as. PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The directory of the server's programs: on the path, or the latest version in Debian's place.
pub(super) fn programs() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    places.extend(versions.into_iter().rev().map(|(_, place)| place));
    // Some systems have links to a few of them alone on the path.
    let programs = ["initdb", "postgres", "pg_ctl", "pg_basebackup"];
    let complete = |place: &&PathBuf| programs.iter().all(|name| place.join(name).is_file());
    places.iter().find(complete).cloned().ok_or_else(|| "the programs of a PostgreSQL server are missing".to_owned())
}

/// The user to run as: `None` for the current one, and the user `postgres` for root.
pub(super) fn unprivileged() -> Result<Option<User>, String> {
    let me = fs::metadata("/proc/self").map_err(|error| error.to_string())?.uid();
    if me != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string(Path::new("/etc/passwd")).map_err(|error| error.to_string())?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.ok_or("there is no user postgres to run a server as")?.split(':').skip(2);
    let mut number = || fields.next().and_then(|field| field.parse().ok()).ok_or("the user postgres has no number");
    Ok(Some(User { uid: number()?, gid: number()? }))
}
