//! The commands that are for an outbox.

use std::fmt;
use std::str::FromStr;

use clap::{Args, Subcommand};
use tower_idempotency_outbox::State;

use super::store::{Consent, STORE};

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxCommand {
    /// Lists calls: first those that wait for an operator, then those that a relay still tries.
    Ls(OutboxLs),
    /// Shows a call.
    Show(OutboxShow),
    /// Tries a call again that was refused, given up or set aside as damaged.
    Retry(OfCall),
    /// Gives a call up that waits for its next try, so that it can be resolved.
    GiveUp(OfCall),
    /// Ends a call that was given up or set aside as damaged, after its effect was looked up at the other service.
    Resolve(Resolve),
}

#[derive(Debug, Args)]
pub(crate) struct OfOutbox {
    #[arg(help = STORE)]
    pub(crate) store: Option<String>,
    /// The outbox: the name of its schema in PostgreSQL, or of its tree in a store of sled.
    #[arg(long, value_name = "NAME", default_value = "outbox")]
    pub(crate) outbox: String,
}

#[derive(Debug, Args)]
pub(crate) struct OutboxLs {
    #[command(flatten)]
    pub(crate) of: OfOutbox,
    /// Only those in this state: waiting, sending, delivered, refused, given-up or damaged. By default, those in
    /// given-up, damaged, sending and waiting.
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub(crate) state: Option<State>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) limit: u16,
    /// Those after this place, with which an earlier list has ended.
    #[arg(long, value_name = "STATE:POSITION")]
    pub(crate) after: Option<Place>,
}

/// Where a list has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) state: State,
    pub(crate) position: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.state, self.position)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, position) = text.split_once(':').ok_or("it is a state and a position, such as waiting:17")?;
        let position = position.parse().map_err(|_| "the position of a call is a number")?;
        Ok(Self { state: state(name)?, position })
    }
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct OutboxShow {
    #[command(flatten)]
    pub(crate) of: OfOutbox,
    /// The position of the call, as lists and logs have it; `-` reads its idempotency key from standard input.
    pub(crate) position: String,
    /// Shows its method, URL, key and partition key too, which may have personal data.
    #[arg(long)]
    pub(crate) request: bool,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct OfCall {
    #[command(flatten)]
    pub(crate) of: OfOutbox,
    /// The position of the call.
    pub(crate) position: u64,
    /// The fence that the call had when it was looked at: a number that each change replaces.
    #[arg(long, value_name = "N")]
    pub(crate) fence: u64,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
#[command(group = clap::ArgGroup::new("found").required(true).args(["done", "not_done"]))]
pub(crate) struct Resolve {
    #[command(flatten)]
    pub(crate) call: OfCall,
    /// It has taken place: the call counts as delivered.
    #[arg(long)]
    pub(crate) done: bool,
    /// It has not taken place: the call counts as refused.
    #[arg(long)]
    pub(crate) not_done: bool,
}

/// Reads the name of a state.
fn state(name: &str) -> Result<State, String> {
    let names: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
    State::from_name(name).ok_or_else(|| format!("a state is one of {}", names.join(", ")))
}
