//! `idem forget`.

use tower_idempotency::operations::{Action, StateKind};

use super::change::{self, Planned};
use crate::arguments::{Forget, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::open::Opened;
use crate::screen::Screen;

pub(crate) async fn run(options: &StoreOptions, forget: Forget, screen: Screen) -> Result<Ended, Failure> {
    let planned = if forget.answer { of_answer() } else { of_record() };
    let opened = Opened::at(forget.of.store.clone(), options).await?;
    let change = async |opened: &Opened| {
        change::make(opened, &forget.of.id, forget.fence, &forget.consent, planned, screen).await
    };
    opened.closed_after(change).await
}

fn of_record() -> Planned {
    let consequence = "The record and its answer are deleted, and the key is free: a retry that still comes RUNS the handler, \
                       and the effect takes place a second time. A server that has the answer in memory goes on replaying it.";
    let states = &[StateKind::Completed, StateKind::Consumed];
    Planned { action: Action::Forget, states, consequence: consequence.to_owned(), takes_input: false }
}

fn of_answer() -> Planned {
    let consequence = "The answer is deleted. The key stays used: retries get `not-replayable` with the status. A server that \
                       has the answer in memory goes on replaying it.";
    let states = &[StateKind::Completed];
    Planned { action: Action::ForgetAnswer, states, consequence: consequence.to_owned(), takes_input: false }
}
