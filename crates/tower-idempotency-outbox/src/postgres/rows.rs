//! What is read of a statement's rows: of those of a lease, and of each look.

use std::time::Duration;

use deadpool_postgres::tokio_postgres::{Error, Row};

use crate::lease::{Age, Leased};
use crate::{Answer, Call, Entry, OpenCalls, OutboxError, State};

/// Reads each row.
pub(super) fn read<T>(rows: &[Row], read: fn(&Row) -> Result<T, Error>) -> Result<Vec<T>, OutboxError> {
    rows.iter().map(read).collect::<Result<_, _>>().map_err(OutboxError::database)
}

/// Reads an entry. What can't be read of its call is damaged, and what is none of its columns is an error.
pub(super) fn entry(row: &Row) -> Result<Entry, Error> {
    let call = Call::from_json(row.try_get("request")?);
    let answer = row.try_get::<_, Option<&str>>("answer")?.and_then(Answer::from_json);
    Ok(Entry { answer, ..listed(row)? }.with_call(call))
}

/// Reads an entry without its call and its answer.
pub(super) fn listed(row: &Row) -> Result<Entry, Error> {
    Ok(Entry {
        position: number(row.try_get("position")?),
        state: state(row.try_get("state")?),
        destination: row.try_get("destination")?,
        call: None,
        tries: row.try_get::<_, i32>("tries")?.unsigned_abs(),
        first_try: row.try_get("first_try")?,
        due: row.try_get("due")?,
        may_have_taken_place: row.try_get("may_have_taken_place")?,
        reason: row.try_get("reason")?,
        answer: None,
        fence: number(row.try_get("fence")?),
        stored: row.try_get("stored")?,
    })
}

pub(super) fn leased(row: &Row) -> Result<Leased, Error> {
    let age = |name| row.try_get::<_, f64>(name);
    let tried_for = tried_for(age("by_database")?, age("by_wall")?, age("by_seen")?, row.try_get("by_process")?);
    Ok(Leased { entry: Entry { may_have_taken_place: row.try_get("before")?, ..entry(row)? }, tried_for })
}

pub(super) fn counted(row: &Row) -> Result<OpenCalls, Error> {
    Ok(OpenCalls {
        state: state(row.try_get(0)?),
        destination: row.try_get(1)?,
        calls: number(row.try_get(2)?),
        oldest: Duration::try_from_secs_f64(row.try_get(3)?).unwrap_or_default(),
    })
}

/// Reads a state. The table has no other ones.
fn state(name: &str) -> State {
    State::from_name(name).unwrap_or(State::Damaged)
}

/// How long ago the first try was, of what it is by the database, by the wall clock, by the time that relays have seen
/// go by, and by the monotonic clock of the process, if that has made the first try.
fn tried_for(database: f64, wall: f64, seen: f64, own: Option<f64>) -> Age {
    let (early, late) = (database.min(wall), database.max(wall));
    // Of two, it is not known which is right. With three, it is not the one that differs from both others.
    let at_most = own.map_or(late, |own| late.min(early.max(own)));
    // A first try that is yet to come has just begun: a clock was wrong then, or is so now.
    let age = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Age { at_least: age(early.min(seen).min(own.unwrap_or(seen))), at_most: age(at_most) }
}

fn number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests;
