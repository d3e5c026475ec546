//! `idem settle --from`: settles the operations of a file.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};
use tower_idempotency::operations::{Action, Applied, ChangeError, StateKind};
use tower_idempotency::store::StoreError;
use tower_idempotency::{Fence, RecordId};

use super::settle_file::{self, Numbered};
use crate::arguments::{Settle, StoreOptions};
use crate::consent;
use crate::failure::{Ended, Failure, with_causes};
use crate::input;
use crate::open::Opened;
use crate::screen::Screen;

/// The number of changes after which their results are written.
const SLICE: usize = 200;

pub(super) async fn run(
    options: &StoreOptions,
    settle: &Settle,
    file: &Path,
    screen: Screen,
) -> Result<Ended, Failure> {
    // The only place is that of the store.
    let store = match (&settle.store, &settle.id) {
        (Some(_), Some(id)) => return Err(Failure::Usage(format!("each line names its operation: leave out {id}"))),
        (store, id) => store.clone().or_else(|| id.clone()),
    };
    // Nothing is changed unless all of it is understood.
    let read = settle_file::read(&input::body(file)?)
        .map_err(|error| Failure::Usage(format!("{}: {error}; nothing was changed", file.display())))?;
    if read.changes.is_empty() {
        let left = format!("nothing was changed: none of {} lines has an action", read.undecided);
        screen.answer(left, &Counts::default().with_undecided(read.undecided).json(&[]))?;
        // Where nothing is interrupted, there is nothing to settle.
        return Ok(if read.undecided == 0 { Ended::Well } else { Ended::Badly });
    }
    let opened = Opened::to_settle(store, options, settle.retention).await?;
    let consequence = format!(
        "{}: {} get an answer, which retries get for {}; {} are taken as not done, and the next retry of each RUNS the \
         handler: where the effect took place after all, it takes place a second time. {} lines without an action are left.",
        file.display(),
        read.answers,
        humantime::format_duration(settle.retention),
        read.changes.len() - read.answers,
        read.undecided,
    );
    let made = match consent::confirm(&settle.consent, &consequence, file == Path::new(input::STANDARD)) {
        Ok(actor) => {
            make(&opened, &actor, read.changes, Counts::default().with_undecided(read.undecided), screen).await
        }
        Err(failure) => Err(failure),
    };
    opened.close().await?;
    made
}

/// Makes the changes, slice by slice, and writes the result of each.
async fn make(
    opened: &Opened,
    actor: &str,
    changes: Vec<Numbered>,
    mut counts: Counts,
    screen: Screen,
) -> Result<Ended, Failure> {
    let (operator, mut results) = (opened.operations.by(actor), Vec::new());
    let mut left = changes.into_iter();
    loop {
        let numbered =
            |Numbered { line, change }| ((line, change.fence, matches!(change.action, Action::Answer(_))), change);
        let (lines, slice): (Vec<_>, Vec<_>) = left.by_ref().take(SLICE).map(numbered).unzip();
        if slice.is_empty() {
            break;
        }
        let mut is_away = false;
        for ((line, fence, is_answer), (id, result)) in lines.into_iter().zip(operator.apply_all(slice).await) {
            let result = LineResult::of(opened, id, fence, is_answer, result).await;
            is_away |= matches!(result, LineResult::Away(_) | LineResult::Uncertain(_));
            // The changes go on if the reader of the output has gone: the audit events have them, too.
            let _ = screen.line(format_args!("line {line}  {}  {result}", id.short()));
            counts.count(&result);
            results.push(
                json!({ "line": line, "id": id.to_string(), "result": result.name(), "detail": result.detail() }),
            );
        }
        // It hardly answers for the others.
        if is_away {
            break;
        }
    }
    counts.not_tried = left.len();
    let _ = screen.answer(&counts, &counts.json(&results));
    let is_done = counts.changed + counts.away + counts.failed + counts.not_tried == 0;
    Ok(if is_done { Ended::Well } else { Ended::Badly })
}

/// What has become of a line.
enum LineResult {
    Done,
    /// It is as the line wants it: this command has settled it before, or a retry or another operator has.
    Settled(String),
    /// It is not, and the line is no longer right.
    Changed(String),
    /// The store does not answer.
    Away(String),
    Uncertain(String),
    /// The change can't be made, whenever it is tried.
    Failed(String),
}

impl LineResult {
    async fn of(
        opened: &Opened,
        id: RecordId,
        fence: Fence,
        is_answer: bool,
        result: Result<Applied, ChangeError>,
    ) -> Self {
        match result {
            Ok(Applied::Done) => Self::Done,
            Ok(_) => match opened.operations.inspect(id).await {
                // The effect took place, and the next retry runs it again.
                Ok(None) if is_answer => {
                    Self::Changed("its key is free: look at it again, before a retry runs".to_owned())
                }
                Ok(None) => Self::Settled("its key is free".to_owned()),
                Ok(Some(now)) => match now.state.kind() {
                    state @ (StateKind::Completed | StateKind::Consumed) => Self::Settled(format!("it is {state}")),
                    // Under another fence, a retry runs it after its key was freed.
                    StateKind::Running if now.fence == fence => {
                        Self::Changed(format!("it is running{}", opened.hint()))
                    }
                    state @ StateKind::Running if !is_answer => Self::Settled(format!("it is {state}")),
                    state => Self::Changed(format!("it is {state}, under the fence {}: look at it again", now.fence)),
                },
                Err(error) => Self::Away(with_causes(&error)),
            },
            Err(error @ ChangeError::Store(StoreError::Uncertain { .. })) => Self::Uncertain(with_causes(&error)),
            Err(error @ ChangeError::Store(StoreError::Unavailable { .. })) => Self::Away(with_causes(&error)),
            Err(error) => Self::Failed(with_causes(&error)),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Settled(_) => "settled before",
            Self::Changed(_) => "stale",
            Self::Away(_) => "not done",
            Self::Uncertain(_) => "uncertain",
            Self::Failed(_) => "failed",
        }
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Settled(detail)
            | Self::Changed(detail)
            | Self::Away(detail)
            | Self::Uncertain(detail)
            | Self::Failed(detail) => Some(detail),
        }
    }
}

impl fmt::Display for LineResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.detail().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

/// How many lines came to each end.
#[derive(Default)]
struct Counts {
    done: usize,
    settled: usize,
    changed: usize,
    away: usize,
    failed: usize,
    undecided: usize,
    not_tried: usize,
}

impl Counts {
    fn with_undecided(self, undecided: usize) -> Self {
        Self { undecided, ..self }
    }

    fn count(&mut self, result: &LineResult) {
        *match result {
            LineResult::Done => &mut self.done,
            LineResult::Settled(_) => &mut self.settled,
            LineResult::Changed(_) => &mut self.changed,
            LineResult::Away(_) | LineResult::Uncertain(_) => &mut self.away,
            LineResult::Failed(_) => &mut self.failed,
        } += 1;
    }

    fn json(&self, results: &[Value]) -> Value {
        json!({
            "done": self.done,
            "settled_before": self.settled,
            "stale": self.changed,
            "away": self.away,
            "failed": self.failed,
            "undecided": self.undecided,
            "not_tried": self.not_tried,
            "results": results,
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} done", self.done)?;
        for (number, what) in [
            (self.settled, "settled before"),
            (self.changed, "stale: look at them again"),
            (self.failed, "failed: mend their lines"),
            (self.away, "not done or uncertain: run the command again"),
            (self.not_tried, "not tried: run the command again"),
            (self.undecided, "left without an action"),
        ] {
            if number > 0 {
                write!(f, "; {number} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use testkit::lab::hold;
    use tower_idempotency::SledStore;

    use super::*;

    // The effect took place, and a run that goes on has it again. Seeded faults: what runs is settled, whatever the
    // line says; the fence does not count.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_line_for_what_runs_again_is_stale_if_it_answers_and_done_if_it_frees_the_key() {
        let directory = tempfile::tempdir().unwrap();
        SledStore::open(directory.path().join("s")).unwrap().close().await.unwrap();
        let name = format!("sled:{}", directory.path().join("s").display());
        let options = StoreOptions { wait: None, schema: None, behind_pooler: false, ca: None };
        let opened = Opened::at(Some(name), &options).await.unwrap();
        let hold = hold(opened.operations.store(), "k").await;
        let (fence, other) = (hold.fence, Fence(hold.fence.0 - 1));
        for (fence, is_answer, expected) in
            [(other, true, "stale"), (other, false, "settled before"), (fence, true, "stale"), (fence, false, "stale")]
        {
            let result = LineResult::of(&opened, testkit::lab::id("k"), fence, is_answer, Ok(Applied::Stale)).await;
            assert_eq!(result.name(), expected, "{fence:?}, an answer: {is_answer}: {result}");
        }
    }
}
