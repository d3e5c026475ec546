//! The limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of the process to the hard one, so that its connections leave files for the store, and warns
/// if there are fewer than the engine needs next to some connections.
pub(in crate::store) fn raise(engine: &'static str, needed: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            target: "tower_idempotency", engine, limit, needed,
            "the process may open few files: where its connections take them all, the store fails; raise the limit (ulimit -n)"
        );
    }
}
