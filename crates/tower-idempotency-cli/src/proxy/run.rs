//! From the start of the proxy to its end.

use std::net::SocketAddr;

use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tower_idempotency::IdempotencyLayer;
use tower_idempotency_proxy::{Proxy, Upstream, recorder};

use super::cors::Cors;
use super::settings::Settings;
use super::whose::Whose;
use super::{store, token};
use crate::address::Address;
use crate::arguments::{self, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::screen::{self, Screen};

/// The most requests that are sent on at once, unless the file says otherwise. Each has its body in memory and a
/// connection of its own.
const MAX_RUNS: usize = 1_024;
/// How many connections wait to be accepted.
const BACKLOG: u32 = 1_024;

pub(crate) async fn run(options: &StoreOptions, proxy: arguments::Proxy, screen: Screen) -> Result<Ended, Failure> {
    let mut settings = Settings::read(proxy.config.as_deref(), proxy.profile.as_deref())?;
    let cors = settings.cors.take().map(Cors::checked).transpose()?;
    let usage = |error: &dyn std::error::Error| Failure::Usage(crate::failure::with_causes(error));
    let service = if proxy.upstream_http2 { Upstream::http2 } else { Upstream::new };
    let mut upstream = service(proxy.upstream.clone()).map_err(|error| usage(&error))?;
    if let Some(name) = &settings.layer.header_name {
        upstream = upstream.key_header(name.clone());
    }
    if let Some(profile) = &settings.layer.profile {
        upstream = upstream.envelope(profile.envelope);
    }
    upstream = upstream.passed_within(proxy.passed_within);
    let whose = Whose::of(&proxy, settings.layer.header_name.as_ref())?;
    let named = Address::of(proxy.store)?;
    let token = token::of(proxy.admin_token_file.as_deref())?;
    if proxy.listen == proxy.monitor && proxy.listen.port() != 0 {
        return Err(Failure::Usage(format!("--listen and --monitor are one address: {}", proxy.listen)));
    }
    // A port that is another program's is named before anything is opened, and none is listened on before that.
    let (listen, monitor) = (bind("--listen", proxy.listen)?, bind("--monitor", proxy.monitor)?);
    let recorder = recorder().map_err(|error| usage(&error))?;

    let store = store::open(named, options, &settings).await?;
    let layer = IdempotencyLayer::new(store)
        .label(|parts| Some(format!("{} {}", parts.method, parts.uri.path())))
        .max_runs(MAX_RUNS);
    let layer = whose.of_layer(settings.layer.apply(layer));
    let (listen, monitor) = (listening("--listen", listen)?, listening("--monitor", monitor)?);

    let stop = stop()?;
    let (address, of_monitor) = (listen.local_addr()?, monitor.local_addr()?);
    let mut text =
        format!("listening on http://{address}, in front of {}; monitor on http://{of_monitor}", proxy.upstream);
    let mut value = json!({
        "listen": address.to_string(), "upstream": proxy.upstream.to_string(), "monitor": of_monitor.to_string(),
    });
    if token.is_new {
        text.push_str(&format!("; operators' page on http://{of_monitor}/admin, with the token {}", token.text));
        value["admin_token"] = token.text.as_str().into();
    }
    screen.answer(text, &value)?;
    let cors = cors.map(|cors| cors.with(&layer));
    let mut served = Proxy::new(layer, upstream).admin_token(token.text);
    if let Some(cors) = cors {
        served = served.cors(cors);
    }
    for name in proxy.monitor_host {
        served = served.monitor_host(name);
    }
    let stopped = served.serve(listen, monitor, recorder, stop).await;
    if stopped.is_clean() {
        return Ok(Ended::Well);
    }
    screen::remark(format_args!("not all has ended in time: {stopped:?}"))?;
    Ok(Ended::Badly)
}

/// Takes the port, and does not listen on it yet.
fn bind(option: &str, address: SocketAddr) -> Result<TcpSocket, Failure> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As a listener has it: the connections of the process before may still be closing.
        socket.set_reuseaddr(cfg!(unix))?;
        socket.bind(address)?;
        Ok(socket)
    };
    bound().map_err(|error: std::io::Error| Failure::Usage(format!("{option} {address}: {error}")))
}

fn listening(option: &str, socket: TcpSocket) -> Result<TcpListener, Failure> {
    socket.listen(BACKLOG).map_err(|error| Failure::Usage(format!("{option}: {error}")))
}

/// Listens for the signals that end the proxy: from here on they no longer end the process.
#[cfg(unix)]
fn stop() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop() -> Result<impl Future<Output = ()>, Failure> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}
