//! The command that serves in front of a service.

use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// What clients expect of their keys: `draft`, `stripe` or `acp`. By default `draft`.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// A header that says whose a key is, such as `X-Account`, set by a gateway in front that has asked who that is.
    /// May be given again: all of them count. Without it, requests with other credentials and the same key are refused.
    #[arg(long, value_name = "HEADER")]
    pub(crate) scope_header: Vec<HeaderName>,
    /// A TOML file with the options of the layer and of the stores: `[layer]`, `[sled]`, `[fjall]`, `[shared]` and
    /// `[postgres]`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where `/metrics`, `/readyz`, `/livez` and the operators' page `/admin` are. The page is open to this machine
    /// alone.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    pub(crate) monitor: SocketAddr,
}
