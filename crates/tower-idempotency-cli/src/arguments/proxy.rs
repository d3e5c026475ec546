//! The command that serves in front of a service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::{HeaderName, Uri};

use super::store::STORE;

/// What `proxy` takes. What is given here comes before what the file says.
#[derive(Debug, Args)]
pub(crate) struct Proxy {
    /// Where clients connect, over HTTP/1.1 and HTTP/2 without TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The service: `http://HOST:PORT`, or `https://` with the certificates that this machine trusts.
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Uri,
    /// The service speaks HTTP/2, also without TLS. It then sees its own address as the authority.
    #[arg(long)]
    pub(crate) upstream_http2: bool,
    #[arg(long, help = STORE)]
    pub(crate) store: Option<String>,
    /// What clients expect of their keys: `draft`, `stripe`, `acp`, `iceberg`, `json-rpc` or `mcp`. By default
    /// `draft`.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// A header that says whose a key is, such as `X-Account`, set by a gateway in front that has asked who that is.
    /// May be given again: all of them count.
    #[arg(long, value_name = "HEADER", conflicts_with_all = ["scope_credentials", "one_account"])]
    pub(crate) scope_header: Vec<HeaderName>,
    /// A key belongs to the credentials that come with it (`Authorization`, `Cookie` and others). A retry with a
    /// renewed token is another operation, and is sent to the service.
    #[arg(long, conflicts_with = "one_account")]
    pub(crate) scope_credentials: bool,
    /// All requests are one account's. A request with a known key and other credentials is refused.
    #[arg(long)]
    pub(crate) one_account: bool,
    /// How long a request without a key waits for its answer, its own body included; and how long any body may pause.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) passed_within: Duration,
    /// A TOML file with the options of the layer and of the stores: `[layer]`, `[sled]`, `[fjall]`, `[shared]`,
    /// `[postgres]` and `[redis]`; and of CORS: `[cors]`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where `/metrics`, `/readyz`, `/livez` and the operators' page `/admin` are. The page is for callers on this
    /// machine that have the token.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    pub(crate) monitor: SocketAddr,
    /// A name by which `--monitor` may be called, besides `localhost` and addresses. May be given again.
    #[arg(long, value_name = "NAME")]
    pub(crate) monitor_host: Vec<String>,
    /// A file with the token for `/admin`. Without it, the proxy makes one, and says it when it starts.
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
}
