//! What a request is: its fingerprint.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::uri::Authority;

use crate::fingerprint::{Fingerprint, FingerprintBuilder};

/// Who asks, where no scope says so.
const CREDENTIALS: [HeaderName; 4] = [AUTHORIZATION, COOKIE, HeaderName::from_static("x-api-key"), PROXY_AUTHORIZATION];

/// The fingerprint of a request: method, host, path and query as the client sent them, content type, body; and, unless
/// a scope says who asks, its credentials. Other headers stay out: clients change some between two tries.
pub(super) fn fingerprint(parts: &Parts, body: &Bytes, scoped: bool) -> Fingerprint {
    let uri = client_uri(parts);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut builder = Fingerprint::builder().field("method", parts.method.as_str().as_bytes());
    let mut last = None;
    for host in hosts(parts, uri.authority()).map(lower_case) {
        if last.as_ref() != Some(&host) {
            builder = builder.field("host", &host);
            last = Some(host);
        }
    }
    builder = builder.field("target", target.as_bytes());
    for value in parts.headers.get_all(CONTENT_TYPE) {
        builder = builder.field("content-type", value.as_bytes());
    }
    builder = builder.field("body", body);
    if scoped { builder.finish() } else { with_credentials(builder, parts).finish() }
}

fn with_credentials(builder: FingerprintBuilder, parts: &Parts) -> FingerprintBuilder {
    let mut builder = builder.with_credentials();
    for name in &CREDENTIALS {
        for value in parts.headers.get_all(name) {
            builder = builder.credential(name.as_str(), value.as_bytes());
        }
    }
    builder
}

/// HTTP/2 names the host in the URI, HTTP/1.1 in a header; a retry may use the other one, so what both say counts once.
/// Where they say different things, all of it counts: nobody knows which one the application reads.
fn hosts<'a>(parts: &'a Parts, authority: Option<&'a Authority>) -> impl Iterator<Item = &'a [u8]> {
    let named = authority.map(|authority| {
        let name = authority.as_str();
        name.rsplit_once('@').map_or(name, |(_, host)| host).as_bytes()
    });
    named.into_iter().chain(parts.headers.get_all(HOST).iter().map(http::HeaderValue::as_bytes))
}

/// Hosts know no case.
fn lower_case(host: &[u8]) -> Cow<'_, [u8]> {
    if host.iter().any(u8::is_ascii_uppercase) { host.to_ascii_lowercase().into() } else { host.into() }
}

/// A nested router strips its prefix from the URI and leaves the client's in an extension.
#[cfg(feature = "axum")]
fn client_uri(parts: &Parts) -> &http::Uri {
    parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |original| &original.0)
}

#[cfg(not(feature = "axum"))]
fn client_uri(parts: &Parts) -> &http::Uri {
    &parts.uri
}
