//! The command that examines a server.

use std::path::PathBuf;

use clap::Args;

/// What `check` takes. What is given here comes before what the plan says.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The URL that is examined: of a POST that makes something.
    pub(crate) url: Option<String>,
    /// Reads a plan from this TOML file: several endpoints, and all that can be said here, with `_` for `-`.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// The body of a request that succeeds, or `@FILE`.
    #[arg(long, value_name = "BODY")]
    pub(crate) data: Option<String>,
    /// Another body that would succeed. By default it is `--data` with its first number raised by one, if it has one.
    #[arg(long, value_name = "BODY")]
    pub(crate) other_data: Option<String>,
    /// The profile by which the server is judged: `draft`, `stripe`, `acp`, `iceberg` or `mcp`. By default `draft`.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// The tool that is called, with `--profile mcp`. Then the bodies are its arguments.
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Option<String>,
    /// Where a call of the tool has its key. By default `json:/params/_meta/idempotencyKey`.
    #[arg(long, value_name = "PLACE")]
    pub(crate) key_from: Option<String>,
    /// What reads bodies that say "no" behind a 200: `json-rpc`, `graphql` or `grpc`. By default the status counts.
    #[arg(long)]
    pub(crate) judge: Option<String>,
    /// How to count effects: a request whose answer is a list of them, or their number, such as `GET /v1/charges`; with
    /// `--profile mcp` also a tool, such as `tool payments`.
    #[arg(long, value_name = "REQUEST")]
    pub(crate) count: Option<String>,
    /// A header of each request, such as `Authorization: Bearer alice`. May be given again.
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// The header that makes a request another account's, such as `Authorization: Bearer bob`.
    #[arg(long, value_name = "HEADER")]
    pub(crate) other_account: Option<String>,
    /// Another path that takes the same body.
    #[arg(long, value_name = "PATH")]
    pub(crate) other_path: Option<String>,
    /// The method. By default POST.
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// The name of the key's header. By default Idempotency-Key.
    #[arg(long, value_name = "NAME")]
    pub(crate) key_header: Option<String>,
    /// A body that the operation declines.
    #[arg(long, value_name = "BODY")]
    pub(crate) declined: Option<String>,
    /// A body that leads to a 5xx.
    #[arg(long, value_name = "BODY")]
    pub(crate) server_error: Option<String>,
    /// A body that leads to a 429.
    #[arg(long, value_name = "BODY")]
    pub(crate) rate_limited: Option<String>,
    /// A body whose request takes a second or more, best after its effect.
    #[arg(long, value_name = "BODY")]
    pub(crate) slow: Option<String>,
    /// How long keys are remembered, if that is short enough to wait for, such as `5s`.
    #[arg(long, value_name = "TIME")]
    pub(crate) retention: Option<String>,
    /// A command that restarts the server in good order.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) restart: Option<String>,
    /// A command that kills the server and starts it again.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) kill: Option<String>,
    /// Runs this check only, besides `works`. May be given again.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// The most requests that are sent in all. By default 5,000.
    #[arg(long, value_name = "N")]
    pub(crate) max_requests: Option<usize>,
    /// Examines a server that is not on this machine.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Writes the report in the form of `JUnit` to this file, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Writes the report as an HTML page to this file, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}
