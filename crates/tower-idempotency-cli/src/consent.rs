//! A change says what it does before it is made, and asks.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::arguments::Consent;
use crate::failure::Failure;
use crate::screen;

/// Says what a change does, and asks. Returns the name for the audit event, if the change is meant. `takes_input`: what
/// comes from standard input is a part of the change.
pub(crate) fn confirm(consent: &Consent, consequence: &str, takes_input: bool) -> Result<String, Failure> {
    screen::remark(consequence)?;
    let actor = consent.actor.clone().or_else(|| std::env::var("USER").ok()).filter(|name| !name.trim().is_empty());
    let can_be_asked = io::stdin().is_terminal() && !takes_input;
    let unconfirmed = (!consent.yes && !can_be_asked).then_some("--yes: it can't be confirmed on standard input");
    let anonymous = actor.is_none().then_some("--actor NAME: the audit event says who makes it");
    let missing: Vec<_> = unconfirmed.into_iter().chain(anonymous).collect();
    let Some(actor) = actor.filter(|_| missing.is_empty()) else {
        let missing = missing.join("; and ");
        return Err(Failure::Usage(format!("nothing was changed. To make this change, add {missing}")));
    };
    if consent.yes {
        return Ok(actor);
    }
    write!(io::stderr(), "Type yes to go on: ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(actor);
    }
    Err(Failure::usage("not confirmed; nothing was changed"))
}
