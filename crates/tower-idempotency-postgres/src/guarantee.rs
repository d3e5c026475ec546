//! The losses that are possible with the database as it is set up.

use tokio_postgres::{Error, Row};

use super::notifications::listen::Arrival;
use tower_idempotency_shared::Guarantee;

/// The settings of the database, as `Queries::setup` reads them. `guarantee` judges by them.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    version: String,
    /// The server is in recovery, so it takes no writes.
    standby: bool,
    fsync: bool,
    full_page_writes: bool,
    synchronous_commit: String,
    /// The value of `synchronous_standby_names`. If it is empty, a commit waits for no standby.
    standbys: String,
    /// The table is unlogged: a crash empties it.
    unlogged: bool,
}

impl Setup {
    /// Reads the only row of that query. The numbers are its columns.
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            version: row.try_get(0)?,
            standby: row.try_get(1)?,
            fsync: row.try_get(2)?,
            full_page_writes: row.try_get(3)?,
            synchronous_commit: row.try_get(4)?,
            standbys: row.try_get(5)?,
            unlogged: row.try_get::<_, Option<bool>>(6)?.unwrap_or(false),
        })
    }

    /// Returns the value of `synchronous_commit` with which puts commit: never less than `on`. `put_1` in `schema.sql`
    /// sets it.
    fn commits(&self) -> &str {
        match self.synchronous_commit.as_str() {
            "off" | "local" => "on",
            commits => commits,
        }
    }
}

/// Says how the database is set up, and what it can lose so. `idem doctor` knows two of the losses by their words: see
/// `doctor/postgres.rs` of tower-idempotency-cli.
pub(super) fn guarantee(setup: &Setup, notifications: Arrival) -> Guarantee {
    let on_off = |on| if on { "on" } else { "off" };
    let text = format!(
        "PostgreSQL {}, {}; fsync {}, full_page_writes {}, synchronous_commit {} for puts, synchronous_standby_names '{}'; \
         notifications {notifications}",
        setup.version,
        if setup.standby { "standby" } else { "primary" },
        on_off(setup.fsync),
        on_off(setup.full_page_writes),
        setup.commits(),
        setup.standbys,
    );
    let waits = !setup.standbys.is_empty();
    let losses = [
        (setup.standby, "It is a standby, and takes no writes."),
        (setup.unlogged, "All of it, when the server crashes: the table is unlogged."),
        (
            !setup.fsync,
            "What was answered, and the database as a whole, when the machine or its power fails: fsync is off.",
        ),
        (
            !setup.full_page_writes,
            "The database may be damaged when the power fails: full_page_writes is off, which only some file systems allow for.",
        ),
        (
            !waits,
            "What was answered last, when another server takes over or this one's disk is lost: no standby is waited for \
             (synchronous_standby_names is empty).",
        ),
        (
            waits && setup.commits() == "remote_write",
            "What was answered last, when this server is lost and a standby's machine fails at the same time: a standby \
             has it in memory when it is answered (synchronous_commit is remote_write).",
        ),
    ];
    let loses = losses.into_iter().filter(|(is_so, _)| *is_so).map(|(_, loss)| loss.to_owned()).collect();
    Guarantee { setup: text, loses }
}
