//! The commands that are for a store, and the options of all of them, which the opening reads.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tower_idempotency::operations::Cursor;

use super::selected::Selected;

pub(super) const STORE: &str = "The store: `sled:PATH`, `fjall:PATH`, a path with `/` or `./` before it, \
    `postgres://USER@HOST/DATABASE?namespace=NAME`, or `redis://USER@HOST?namespace=NAME`, which may also begin with rediss, \
    redis+sentinel or redis+cluster. All else is refused. By default it is the value of the variable IDEM_STORE, whose URL \
    may have a password; PGPASSWORD and REDISCLI_AUTH may have it too";

/// The time that `--wait` waits for: other servers have a lease of 30 seconds, and one that has died is noticed after
/// at most 17/12 of it.
const NOTICED_AFTER: &str = "45s";

/// What every command with a store takes. Help has it after a command's own options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command with a store")]
pub(crate) struct StoreOptions {
    /// PostgreSQL, Redis: waits first, so that runs of a server that has died show as interrupted.
    #[arg(long, global = true, value_name = "TIME", num_args = 0..=1, require_equals = true,
        default_missing_value = NOTICED_AFTER, value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
    /// PostgreSQL: the schema in which the table is, if it is not `idempotency`.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) schema: Option<String>,
    /// PostgreSQL: the URL is that of a pooler in transaction mode, such as PgBouncer.
    #[arg(long, global = true)]
    pub(crate) behind_pooler: bool,
    /// PostgreSQL, Redis: trusts the certificates of this PEM file, in place of the system's.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Lists operations, first the interrupted ones, the oldest first; then the others.
    Ls(Box<Ls>),
    /// Finds the operation of a key, which is read from standard input.
    ///
    /// The last line is the key. The lines before it are the parts of its scope, if it has one; a part that is no text
    /// is `\x` and its bytes in hexadecimal.
    Find(OfStore),
    /// Shows an operation.
    Show(Show),
    /// Writes operations, a line of JSON for each: without `--state`, those that are interrupted.
    ///
    /// `settle --from` takes the lines, once each says what is to be done.
    Export(Box<Export>),
    /// Settles an interrupted operation, after its effect was looked up; or all those of a file.
    Settle(Box<Settle>),
    /// Deletes the record of a done operation: a retry that still comes runs again. With `--answer`, its answer alone.
    Forget(Forget),
    /// Reads every record, and reports what is damaged.
    Verify(OfStore),
    /// Copies all live records to another store, while no server runs, and counts both sides.
    ///
    /// The records stay in the old store, too. A record that is in the new store already is never overwritten, so the
    /// command may be run again after an interruption. Both databases have the password of PGPASSWORD or
    /// `REDISCLI_AUTH`.
    Copy(Copy),
    /// Writes the SQL that makes the tables in PostgreSQL, for a team that applies it by psql or a tool for migrations.
    ///
    /// It needs no database. The SQL is for one transaction, and may run again.
    Migrations(Migrations),
    /// Tests the store itself: claims, lost answers, clock, syncs, schema, rights, versions, and what it can lose.
    Doctor(OfStore),
}

#[derive(Debug, Args)]
pub(crate) struct OfStore {
    #[arg(help = STORE)]
    pub(crate) store: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Migrations {
    /// Only what is newer than this version, which the database has already.
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) after: i32,
    /// That of the outbox in this schema, in place of the store's.
    #[arg(long, value_name = "NAME", conflicts_with = "schema")]
    pub(crate) outbox: Option<String>,
    /// Gives this role the rights that a service needs.
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// The store that has the records: `sled:PATH`, `fjall:PATH`, a path with `/` or `./` before it, or a URL of
    /// PostgreSQL or Redis. No server may use it.
    pub(crate) from: String,
    /// The store that gets them: `sled:PATH` or `fjall:PATH`, which is made if it is not there, a URL of PostgreSQL
    /// whose table is there, or one of Redis. No server may use it.
    pub(crate) to: String,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) of: OfStore,
    #[command(flatten)]
    pub(crate) selected: Selected,
    /// Lists the outcomes that came after their operation was taken over or settled: each may be a second effect.
    #[arg(long, conflicts_with = "Selected")]
    pub(crate) disputed: bool,
    /// Writes whole ids in the table. Without it, the first eight digits, which every command takes.
    #[arg(long)]
    pub(crate) full_ids: bool,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    /// From the place on that an earlier list has ended with.
    #[arg(long, value_name = "PLACE")]
    pub(crate) after: Option<Cursor>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) of: OfStore,
    #[command(flatten)]
    pub(crate) selected: Selected,
    /// Writes the key that the handler derives for this step, to look it up in the ledger or at the provider. May be
    /// given again.
    #[arg(long, value_name = "NAME")]
    pub(crate) step: Vec<String>,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct OfOperation {
    #[arg(help = STORE)]
    pub(crate) store: Option<String>,
    /// The record id: 64 hex digits, or the first eight or more, as in logs and refusals.
    #[arg(value_parser = id)]
    pub(crate) id: String,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) of: OfOperation,
    /// In place of the operation, shows the disputed outcome of the run with this fence, as `ls --disputed` lists it.
    #[arg(long, value_name = "FENCE")]
    pub(crate) disputed: Option<u64>,
    /// Shows the recorded outcome too, with headers and body, which may have personal data.
    #[arg(long)]
    pub(crate) body: bool,
    /// Shows the key that the handler derives for this step, to look it up in the ledger or at the provider. May be
    /// given again.
    #[arg(long, value_name = "NAME")]
    pub(crate) step: Vec<String>,
}

/// What every change takes.
#[derive(Debug, Args)]
pub(crate) struct Consent {
    /// Who makes the change, for the audit event. By default it is the value of the variable USER.
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// Does not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["answer", "release", "from"]))]
pub(crate) struct Settle {
    #[arg(help = STORE)]
    pub(crate) store: Option<String>,
    /// The record id: 64 hex digits, or the first eight or more, as in logs and refusals. Not with `--from`.
    pub(crate) id: Option<String>,
    /// The fence that the operation had when it was looked at: a number that grows with each of its runs and changes.
    #[arg(long, value_name = "N", required_unless_present = "from")]
    pub(crate) fence: Option<u64>,
    /// Settles the operations of this file, in which each line is one that `export` has written, with "action":
    /// "release", or "action": "answer" and "answer": {"status": 201, "headers": [["content-type",
    /// "application/json"]], "body": "{}"}. Lines without an action are left. `-` is standard input. The command may be
    /// run again after an interruption.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fence", "status", "header", "consumer"])]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// It took effect: retries get the body in this file; `-` is standard input. What is in a file whose name ends in
    /// `.json` has the content type application/json, unless `--header` says another.
    #[arg(long, value_name = "FILE")]
    pub(crate) answer: Option<PathBuf>,
    /// The HTTP status of the answer.
    #[arg(long, value_name = "CODE", default_value_t = 200, conflicts_with = "release")]
    pub(crate) status: u16,
    /// A header of the answer, such as `content-type: application/json`. May be given again.
    #[arg(long, value_name = "HEADER", conflicts_with = "release")]
    pub(crate) header: Vec<String>,
    /// The operation is a message consumer's: the file is its outcome in JSON, as the effect returns it.
    #[arg(long, conflicts_with_all = ["release", "status", "header"])]
    pub(crate) consumer: bool,
    /// How long the answer is kept: as long as the service's own `retention`, or a later retry runs again.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration,
        conflicts_with = "release")]
    pub(crate) retention: Duration,
    /// It did not take effect: the next retry runs.
    #[arg(long)]
    pub(crate) release: bool,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct Forget {
    #[command(flatten)]
    pub(crate) of: OfOperation,
    /// The fence that the operation had when it was looked at: a number that grows with each of its runs and changes.
    #[arg(long, value_name = "N")]
    pub(crate) fence: u64,
    /// Deletes the answer alone, with its body. The key stays used: retries get `not-replayable` with the status.
    #[arg(long)]
    pub(crate) answer: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Reads a record id, or its beginning.
pub(crate) fn id(text: &str) -> Result<String, &'static str> {
    let is_id = (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id
        .then(|| text.to_ascii_lowercase())
        .ok_or("a record id has 64 hex digits; eight or more of the first are enough")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    #[test]
    fn the_store_comes_first_and_may_be_left_out() {
        let id = "86dd3875";
        for (arguments, store) in [(&["idem", "show", "sled:x", id][..], Some("sled:x")), (&["idem", "show", id], None)]
        {
            let Command::Store(StoreCommand::Show(show)) = Arguments::try_parse_from(arguments).unwrap().command else {
                panic!()
            };
            assert_eq!((show.of.store.as_deref(), show.of.id.as_str()), (store, id));
        }
    }

    #[test]
    fn a_settlement_says_how() {
        let settle = |how: &[&str]| {
            let arguments = [&["idem", "settle", "sled:x", "86dd3875", "--fence", "1"], how].concat();
            Arguments::try_parse_from(arguments).map(drop)
        };
        assert!(settle(&["--release"]).is_ok() && settle(&["--answer", "-", "--status", "201"]).is_ok());
        let file = |arguments: &[&str]| Arguments::try_parse_from([&["idem", "settle"], arguments].concat()).map(drop);
        assert!(file(&["sled:x", "--from", "-"]).is_ok() && file(&["--from", "changes.jsonl"]).is_ok());
        for wrong in [
            &[][..],
            &["--release", "--answer", "-"],
            &["--from", "-"],
            &["--release", "--status", "201"],
            &["--consumer"],
        ] {
            assert!(settle(wrong).is_err(), "{wrong:?}");
        }
    }
}
