//! Opens a directory that no process has open. The opening marks the runs that the last process left as interrupted: so
//! a stuck run can be settled once `idem` has the directory.

use std::path::Path;

use tower_idempotency::store::OpenError;
use tower_idempotency::{AnyStore, Fence, FjallStore, SledStore};

use crate::address::{Directory, Engine};
use crate::failure::{Failure, with_causes};

/// An open directory.
pub(crate) struct Embedded {
    pub(crate) store: AnyStore,
    /// It is above all fences that were given here.
    pub(crate) fence: Fence,
}

/// Opens the store in a directory, and makes none.
pub(crate) async fn opened(directory: &Directory) -> Result<AnyStore, OpenError> {
    embedded(directory, false, Fence(0)).await.map(|opened| opened.store)
}

/// Opens the store in a directory. If `create`, it is made if there is none. New fences are above `above`. It has no
/// outcomes in memory, so what is read is what the directory has.
pub(crate) async fn embedded(directory: &Directory, create: bool, above: Fence) -> Result<Embedded, OpenError> {
    let path = &directory.path;
    let sled = || {
        let store = SledStore::builder().create(create).fences_above(above).outcome_cache_bytes(0).open(path)?;
        Ok(Embedded { fence: store.fence_above_all(), store: AnyStore::new(store) })
    };
    let fjall = || {
        let store = FjallStore::builder().create(create).fences_above(above).outcome_cache_bytes(0).open(path)?;
        Ok(Embedded { fence: store.fence_above_all(), store: AnyStore::new(store) })
    };
    // The disk may take a while, but this command waits for nothing else.
    tokio::task::block_in_place(|| by_engine(directory.engine, sled, fjall))
}

/// Opens a directory with the engine that was named, or else with the one that made it.
pub(crate) fn by_engine<T>(
    engine: Option<Engine>,
    sled: impl FnOnce() -> Result<T, OpenError>,
    fjall: impl FnOnce() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    match engine {
        Some(Engine::Sled) => sled(),
        Some(Engine::Fjall) => fjall(),
        None => match sled() {
            Err(OpenError::OtherEngine { found, .. }) if found == "fjall" => fjall(),
            opened => opened,
        },
    }
}

/// Returns why a directory can't be opened, for operators.
pub(crate) fn reason(error: &OpenError) -> String {
    match error {
        OpenError::InUse { path } => format!(
            "{} is held open by another process, which is the service as a rule. One process at a time has a directory: \
             stop the service first, or use the operators' interface of the service itself",
            path.display()
        ),
        OpenError::NotFound { path } => format!(
            "there is no store in {}; none is made. Check the path, and that its volume is mounted",
            path.display()
        ),
        other => with_causes(other),
    }
}

/// The failure of a directory that can't be opened.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn not_opened(error: OpenError) -> Failure {
    Failure::Store(reason(&error))
}

/// Fails if the directory is another user's.
pub(crate) fn refuse_other_owner(path: &Path) -> Result<(), Failure> {
    owner_is_other(path).map_or(Ok(()), |other| Err(Failure::Usage(other)))
}

/// Returns a reason to stop if the directory is another user's: the files that this process made would be closed to the
/// service.
#[cfg(target_os = "linux")]
pub(crate) fn owner_is_other(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(path).ok()?.uid();
    // The files of a process there are its effective user's.
    let own = std::fs::metadata("/proc/self").ok()?.uid();
    (owner != own).then(|| {
        format!(
            "{} belongs to user {owner}, and this is user {own}. Run idem as that user, for example by `setpriv --reuid` or \
             `sudo -u`: the files that it makes would be closed to the service",
            path.display()
        )
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn owner_is_other(_: &Path) -> Option<String> {
    None
}
