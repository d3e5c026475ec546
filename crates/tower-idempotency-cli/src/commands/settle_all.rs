//! `idem settle --from`: settles the operations of a file.

use std::path::Path;

use serde_json::{Value, json};
use tower_idempotency::operations::{Action, Applied, Change, ChangeError, StateKind};
use tower_idempotency::store::StoreError;
use tower_idempotency::{Fence, RecordId};

use super::settle_file::{self, FileRead};
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
        screen.answer(left, &summary(&[], read.undecided, 0).1)?;
        // Where nothing is interrupted, there is nothing to settle.
        return Ok(if read.undecided == 0 { Ended::Well } else { Ended::Badly });
    }
    let opened = Opened::to_settle(store, options, settle.retention).await?;
    let answers = read.changes.iter().filter(|(_, change)| gives_answer(change)).count();
    let consequence = format!(
        "{}: {answers} get an answer, which retries get for {}; {} are taken as not done, and the next retry of each RUNS the \
         handler: where the effect took place after all, it takes place a second time. {} lines without an action are left.",
        file.display(),
        humantime::format_duration(settle.retention),
        read.changes.len() - answers,
        read.undecided,
    );
    let make = async |opened: &Opened| {
        let actor = consent::confirm(&settle.consent, &consequence, file == Path::new(input::STANDARD))?;
        make(opened, &actor, read, screen).await
    };
    opened.closed_after(make).await
}

/// Makes the changes, slice by slice, and writes the result of each.
async fn make(opened: &Opened, actor: &str, read: FileRead, screen: Screen) -> Result<Ended, Failure> {
    let (operator, mut results) = (opened.operations.by(actor), Vec::<LineResult>::new());
    let mut left = read.changes.into_iter();
    // A store that is away hardly answers for the others.
    while left.len() > 0 && !results.iter().any(|result| matches!(result.end, End::Away | End::Uncertain)) {
        let numbered = |(line, change): (usize, Change)| ((line, change.fence, gives_answer(&change)), change);
        let (lines, slice): (Vec<_>, Vec<_>) = left.by_ref().take(SLICE).map(numbered).unzip();
        for ((line, fence, is_answer), (id, result)) in lines.into_iter().zip(operator.apply_all(slice).await) {
            let (end, detail) = end(opened, id, fence, is_answer, result).await;
            let name = end.name();
            let said = detail.as_ref().map_or_else(|| name.to_owned(), |detail| format!("{name}: {detail}"));
            // The changes go on if the reader of the output has gone: the audit events have them, too.
            let _ = screen.line(format_args!("line {line}  {}  {said}", id.short()));
            results.push(LineResult { line, id, end, detail });
        }
    }
    let (text, value) = summary(&results, read.undecided, left.len());
    let _ = screen.answer(text, &value);
    let is_done = left.len() == 0 && results.iter().all(|result| matches!(result.end, End::Done | End::Settled));
    Ok(if is_done { Ended::Well } else { Ended::Badly })
}

fn gives_answer(change: &Change) -> bool {
    matches!(change.action, Action::Answer(_))
}

/// What has become of a line.
struct LineResult {
    line: usize,
    id: RecordId,
    end: End,
    detail: Option<String>,
}

/// What can become of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    /// It is as the line wants it: this command has settled it before, or a retry or another operator has.
    Settled,
    /// It is not, and the line is no longer right.
    Changed,
    /// The store does not answer.
    Away,
    Uncertain,
    /// The change can't be made, whenever it is tried.
    Failed,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Settled => "settled before",
            Self::Changed => "stale",
            Self::Away => "not done",
            Self::Uncertain => "uncertain",
            Self::Failed => "failed",
        }
    }
}

/// Returns what has become of a line, and what there is to say about it.
async fn end(
    opened: &Opened,
    id: RecordId,
    fence: Fence,
    is_answer: bool,
    result: Result<Applied, ChangeError>,
) -> (End, Option<String>) {
    let (end, detail) = match result {
        Ok(Applied::Done) => return (End::Done, None),
        Ok(_) => match opened.operations.inspect(id).await {
            // The effect took place, and the next retry runs it again.
            Ok(None) if is_answer => {
                (End::Changed, "its key is free: look at it again, before a retry runs".to_owned())
            }
            Ok(None) => (End::Settled, "its key is free".to_owned()),
            Ok(Some(now)) => match now.state.kind() {
                state @ (StateKind::Completed | StateKind::Consumed) => (End::Settled, format!("it is {state}")),
                // Under another fence, a retry runs it after its key was freed.
                StateKind::Running if now.fence == fence => (End::Changed, format!("it is running{}", opened.hint())),
                state @ StateKind::Running if !is_answer => (End::Settled, format!("it is {state}")),
                state => (End::Changed, format!("it is {state}, under the fence {}: look at it again", now.fence)),
            },
            Err(error) => (End::Away, with_causes(&error)),
        },
        Err(error) => {
            let end = match &error {
                ChangeError::Store(StoreError::Uncertain { .. }) => End::Uncertain,
                ChangeError::Store(StoreError::Unavailable { .. }) => End::Away,
                _ => End::Failed,
            };
            (end, with_causes(&error))
        }
    };
    (end, Some(detail))
}

/// Returns how many lines came to each end, as text, and as a value with the results.
fn summary(results: &[LineResult], undecided: usize, not_tried: usize) -> (String, Value) {
    let count = |ends: &[End]| results.iter().filter(|result| ends.contains(&result.end)).count();
    let result = |LineResult { line, id, end, detail }: &LineResult| json!({ "line": line, "id": id.to_string(), "result": end.name(), "detail": detail });
    let done = count(&[End::Done]);
    let mut text = format!("{done} done");
    let mut value = json!({ "done": done, "results": results.iter().map(result).collect::<Vec<_>>() });
    for (name, number, what) in [
        ("settled_before", count(&[End::Settled]), "settled before"),
        ("stale", count(&[End::Changed]), "stale: look at them again"),
        ("failed", count(&[End::Failed]), "failed: mend their lines"),
        ("away", count(&[End::Away, End::Uncertain]), "not done or uncertain: run the command again"),
        ("not_tried", not_tried, "not tried: run the command again"),
        ("undecided", undecided, "left without an action"),
    ] {
        value[name] = number.into();
        if number > 0 {
            text.push_str(&format!("; {number} {what}"));
        }
    }
    (text, value)
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
            let (end, detail) = end(&opened, testkit::lab::id("k"), fence, is_answer, Ok(Applied::Stale)).await;
            assert_eq!(end.name(), expected, "{fence:?}, an answer: {is_answer}: {detail:?}");
        }
    }
}
