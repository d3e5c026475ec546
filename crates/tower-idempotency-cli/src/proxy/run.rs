//! From the start of the proxy to its end.

use std::net::SocketAddr;

use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tower_idempotency::{IdempotencyLayer, Meaning, OnInterrupted, Rejection, Scope};
use tower_idempotency_proxy::{Proxy, Upstream, recorder};

use super::settings::Settings;
use super::store;
use crate::arguments::{self, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::place::Place;
use crate::screen::{self, Screen};

/// The most requests that are sent on at once, unless the file says otherwise. Each has its body in memory and a
/// connection of its own.
const MAX_RUNS: usize = 1_024;

pub(crate) async fn run(options: &StoreOptions, proxy: arguments::Proxy, screen: &Screen) -> Result<Ended, Failure> {
    let settings = Settings::read(proxy.config.as_deref(), proxy.profile)?;
    let usage = |error: &dyn std::error::Error| Failure::Usage(crate::failure::with_causes(error));
    let service = if proxy.upstream_http2 { Upstream::http2 } else { Upstream::new };
    let mut upstream = service(proxy.upstream.clone()).map_err(|error| usage(&error))?;
    if let Some(name) = &settings.layer.header_name {
        upstream = upstream.key_header(name.clone());
    }
    if let Some(profile) = &settings.layer.profile {
        upstream = upstream.envelope(profile.envelope);
    }
    let place = Place::of(proxy.store)?;
    let listen = bind("--listen", proxy.listen).await?;
    let monitor = bind("--monitor", proxy.monitor).await?;
    let recorder = recorder().map_err(|error| usage(&error))?;

    let store = store::open(place, options, &settings).await?;
    let names = proxy.scope_header;
    let layer = IdempotencyLayer::new(store)
        .label(|parts| Some(format!("{} {}", parts.method, parts.uri.path())))
        .max_runs(MAX_RUNS)
        .classify(classify(settings.layer.on_interrupted == Some(OnInterrupted::Rerun)))
        .scope(move |parts: &Parts| scope(&names, parts));
    let layer = settings.layer.apply(layer);

    let stop = stop()?;
    let (address, of_monitor) = (listen.local_addr()?, monitor.local_addr()?);
    let text = format!("listening on http://{address}, in front of {}; monitor on http://{of_monitor}", proxy.upstream);
    let value = json!({
        "listen": address.to_string(), "upstream": proxy.upstream.to_string(), "monitor": of_monitor.to_string(),
    });
    screen.answer(text, &value)?;
    let stopped = Proxy::new(layer, upstream).serve(listen, monitor, recorder, stop).await;
    if stopped.is_clean() {
        return Ok(Ended::Well);
    }
    screen::remark(format_args!("not all has ended in time: {stopped:?}"))?;
    Ok(Ended::Badly)
}

async fn bind(option: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| Failure::Usage(format!("{option} {address}: {error}")))
}

/// Whose a key is, by the values of these headers. A request with none of them has no scope. One that has some of them,
/// or one twice, is refused: it would belong with others.
fn scope(names: &[HeaderName], parts: &Parts) -> Result<Option<Scope>, Rejection> {
    if !names.iter().any(|name| parts.headers.contains_key(name)) {
        return Ok(None);
    }
    let mut scope: Option<Scope> = None;
    for name in names {
        let mut values = parts.headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            let detail = format!("A request that says whose it is needs one {name}.");
            return Err(Rejection::custom(StatusCode::BAD_REQUEST, "It is not clear whose the request is", detail));
        };
        scope = Some(match scope {
            Some(scope) => scope.and(value.as_bytes())?,
            None => Scope::new(value.as_bytes())?,
        });
    }
    Ok(scope)
}

/// What an answer without a mark means, where a service behind a proxy differs from a handler: one that is asked again
/// for the same operation answers 409 while it is still at it.
fn classify(is_rerun: bool) -> impl Fn(&http::response::Parts, Option<&HeaderMap>) -> Option<Meaning> {
    move |parts, _| (is_rerun && parts.status == StatusCode::CONFLICT).then_some(Meaning::Unknown)
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

#[cfg(test)]
mod tests {
    use http::{HeaderName, Request};

    use super::*;

    #[test]
    fn all_headers_of_the_scope_count_and_a_request_that_lacks_one_is_refused() {
        let names = ["x-tenant", "x-user"].map(HeaderName::from_static);
        let of = |lines: &[(&str, &str)]| {
            let request = lines.iter().fold(Request::post("/"), |request, (name, value)| request.header(*name, *value));
            scope(&names, &request.body(()).unwrap().into_parts().0)
        };
        let both = of(&[("x-user", "b"), ("x-tenant", "a")]).unwrap();
        assert_eq!(both, Some(Scope::new("a").unwrap().and("b").unwrap()));
        assert_eq!(of(&[("x-other", "b")]).unwrap(), None);
        for unclear in [
            &[("x-user", "b")][..],
            &[("x-user", "b"), ("x-tenant", "")],
            &[("x-tenant", "a"), ("x-user", "b"), ("x-user", "c")],
        ] {
            assert!(of(unclear).is_err(), "{unclear:?}");
        }
    }

    #[test]
    fn a_409_under_rerun_is_the_service_at_work() {
        let of = |is_rerun, status: u16| {
            let (parts, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
            classify(is_rerun)(&parts, None)
        };
        for is_rerun in [false, true] {
            assert_eq!((of(is_rerun, 401), of(is_rerun, 500)), (None, None), "as the layer has it");
        }
        assert_eq!((of(false, 409), of(true, 409)), (None, Some(Meaning::Unknown)));
    }
}
