//! A change says what it does before it is made, and asks.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::arguments::Change;
use crate::failure::Failure;
use crate::screen;

/// Returns the name for the audit event.
pub(crate) fn actor(change: &Change) -> Result<String, Failure> {
    let named = change.actor.clone().or_else(|| std::env::var("USER").ok());
    named
        .filter(|name| !name.trim().is_empty())
        .ok_or_else(|| Failure::Usage("say who makes the change, for the audit event: --actor NAME".to_owned()))
}

/// Refuses early what could not be confirmed later.
pub(crate) fn can_be_asked(change: &Change, takes_input: bool) -> Result<(), Failure> {
    if change.yes || (io::stdin().is_terminal() && !takes_input) {
        return Ok(());
    }
    Err(Failure::Usage("there is no terminal to confirm the change on; look at what it does, and add --yes".to_owned()))
}

/// Says what a change does, and returns if it is meant.
pub(crate) fn confirm(change: &Change, consequence: &str) -> Result<(), Failure> {
    screen::remark(consequence)?;
    if change.yes {
        return Ok(());
    }
    write!(io::stderr(), "Type yes to go on: ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::Usage("not confirmed; nothing was changed".to_owned()))
}
