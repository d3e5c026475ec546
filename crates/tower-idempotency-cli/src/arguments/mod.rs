//! The command line.

#[cfg(feature = "check")]
mod check;
#[cfg(feature = "store")]
mod outbox;
#[cfg(feature = "proxy")]
mod proxy;
#[cfg(feature = "store")]
mod selected;
#[cfg(feature = "store")]
mod store;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "check")]
pub(crate) use self::check::Check;
#[cfg(feature = "store")]
pub(crate) use self::outbox::{OfCall, OutboxCommand, OutboxLs, OutboxShow, Place, Resolve};
#[cfg(feature = "proxy")]
pub(crate) use self::proxy::Proxy;
#[cfg(feature = "store")]
pub(crate) use self::store::{
    Consent, Copy, Export, Forget, Ls, Migrations, OfStore, Settle, Show, StoreCommand, StoreOptions, id,
};

/// Lists, settles, verifies, copies and tests what the store of a service has, examines servers from outside, and
/// serves as a proxy in front of one.
///
/// Keys and scopes of a store are read from standard input. No customer's key and no password belongs on a command
/// line.
#[derive(Debug, Parser)]
#[command(
    name = "idem",
    version,
    after_help = "Exit codes: 0 done or found; 1 not found, nothing changed, or a fault found; 2 wrong usage, or not \
                  confirmed; 3 the store can't be used."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes. Help has it after a command's own options.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Writes JSON: one value, with times in RFC 3339, and fences, which are large numbers, as strings.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,
    #[cfg(feature = "store")]
    #[command(flatten)]
    pub(crate) store: StoreOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "store")]
    #[command(flatten)]
    Store(StoreCommand),
    /// Shows the calls of an outbox, and settles those that wait for an operator.
    #[cfg(feature = "store")]
    #[command(subcommand)]
    Outbox(OutboxCommand),
    #[cfg(feature = "check")]
    /// Examines from outside whether an HTTP API keeps what `Idempotency-Key` promises. It needs no store.
    ///
    /// It makes effects: each check sends some requests that succeed. Exit codes: 0 kept; 1 broken; 2 could not check.
    Check(Box<Check>),
    /// Puts the layer in front of a service in any language, as a reverse proxy.
    ///
    /// A request with an `Idempotency-Key` is claimed before it is sent on; its answer is recorded and replayed. All
    /// others are streamed. Ctrl-C or SIGTERM ends it, after what is under way.
    #[cfg(feature = "proxy")]
    Proxy(Box<Proxy>),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }
}
