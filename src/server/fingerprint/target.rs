//! The target of a request: the fingerprint's part for host, path and query, and the URI that a handler's context
//! keeps.

use std::borrow::Cow;

use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, Scheme, Uri};

use crate::fingerprint::{FingerprintBuilder, RequestPart};
use crate::server::context::IdempotencyContext;
use crate::server::header::lines;

/// The place where the client sent the request, and, if that is in doubt, the other place where it may have sent it.
///
/// A nested router strips its prefix from the URI and leaves the client's URI in an extension. If a handler sends a
/// request whose head is a copy of its own request's head, the extension is still there, but it is stale: it says where
/// the handler's request was sent. Two signs show whether the extension is stale: an enclosing exchange has seen a
/// stale URI before, and a URI from which a prefix was stripped ends with the rest of it. If the two signs disagree,
/// both URIs count, so that two requests are never taken for one.
pub(crate) struct Target<'a> {
    /// The URI to which the client sent the request.
    uri: &'a Uri,
    /// The other URI, if it is in doubt which one is the client's.
    other: Option<&'a Uri>,
    /// The pattern of the nested router, if `uri` may lack its prefix.
    nested: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Decides by the two signs which URI is the client's.
    pub(crate) fn of(parts: &'a Parts) -> Self {
        let differs = |original: &&Uri| original.path_and_query() != parts.uri.path_and_query();
        let Some(original) = original_uri(parts).filter(differs) else {
            return Self { uri: &parts.uri, other: None, nested: None };
        };
        match (is_stale(original, parts), is_stripped(original, &parts.uri)) {
            // The extension has the client's URI.
            (false, true) => Self { uri: original, other: None, nested: None },
            // A nested router may have stripped a prefix, of which only the pattern is left.
            (true, false) => Self { uri: &parts.uri, other: None, nested: nested_path(parts) },
            // The signs disagree.
            (true, true) | (false, false) => {
                Self { uri: original, other: Some(&parts.uri), nested: nested_path(parts) }
            }
        }
    }

    /// Returns the path to which the client sent the request. If it is in doubt, the text has all that it may be.
    pub(crate) fn path(&self) -> Cow<'a, str> {
        let path = self.uri.path();
        if self.other.is_none() && self.nested.is_none() {
            return path.into();
        }
        // No path has a line break.
        format!("{path}\n{}\n{}", self.other.map_or("", Uri::path), self.nested.unwrap_or_default()).into()
    }

    /// Adds the target to a fingerprint.
    pub(crate) fn add_to(&self, builder: &mut FingerprintBuilder, parts: &Parts) {
        // The labels are hashed: see `Sameness::fingerprint`. A host that is named twice in a row counts once.
        let mut last = None;
        for host in hosts(parts, self.uri.authority()).map(|host| plain_host(host, self.uri.scheme())) {
            if last.as_ref() != Some(&host) {
                builder.add_context_field("host", &host);
                builder.mark(RequestPart::Host, &host);
                last = Some(host);
            }
        }
        builder.add_field("target", target(self.uri));
        builder.mark(RequestPart::Path, self.uri.path().as_bytes());
        if let Some(query) = self.uri.query() {
            builder.mark(RequestPart::Query, query.as_bytes());
        }
        if let Some(other) = self.other {
            builder.add_field("other target", target(other));
            builder.mark(RequestPart::Path, other.path().as_bytes());
        }
        if let Some(nested) = self.nested {
            builder.add_field("nested", nested.as_bytes());
            builder.mark(RequestPart::Path, nested.as_bytes());
        }
    }
}

/// Returns the first sign: an enclosing exchange has seen the URI of the extension.
fn is_stale(original: &Uri, parts: &Parts) -> bool {
    parts.extensions.get().is_some_and(|enclosing: &IdempotencyContext| enclosing.has_seen(original))
}

/// Returns the second sign: `uri` is the end of `original`. Many paths end with `/`, so `/` alone shows nothing.
fn is_stripped(original: &Uri, uri: &Uri) -> bool {
    let (before, left) = (original.path(), uri.path());
    original.query() == uri.query() && (before.ends_with(left) && left != "/")
}

fn target(uri: &Uri) -> &[u8] {
    uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes()
}

/// Returns the URI to which the client sent a request, according to the request, stale or not. Its exchange counts as
/// having seen this URI.
pub(crate) fn seen_uri(parts: &Parts) -> &Uri {
    original_uri(parts).unwrap_or(&parts.uri)
}

/// Returns the URI that axum has put into the extensions before a nested router could strip a prefix.
#[cfg(feature = "axum")]
fn original_uri(parts: &Parts) -> Option<&Uri> {
    parts.extensions.get::<axum::extract::OriginalUri>().map(|original| &original.0)
}

/// Returns the pattern of the prefix that axum's nested router strips.
#[cfg(feature = "axum")]
fn nested_path(parts: &Parts) -> Option<&str> {
    parts.extensions.get::<axum::extract::NestedPath>().map(axum::extract::NestedPath::as_str)
}

#[cfg(not(feature = "axum"))]
fn original_uri(_: &Parts) -> Option<&Uri> {
    None
}

#[cfg(not(feature = "axum"))]
fn nested_path(_: &Parts) -> Option<&str> {
    None
}

/// Returns the hosts that a request names: HTTP/2 has the host in the URI, HTTP/1.1 in a header.
///
/// A retry may use the other version of HTTP, so a host that is named twice counts once. If two hosts are named, both
/// count, because it is unknown which one the application reads.
fn hosts<'a>(parts: &'a Parts, authority: Option<&'a Authority>) -> impl Iterator<Item = &'a [u8]> {
    let named = authority.map(|authority| {
        let name = authority.as_str();
        name.rsplit_once('@').map_or(name, |(_, host)| host).as_bytes()
    });
    named.into_iter().chain(lines(&parts.headers, HOST).map(HeaderValue::as_bytes))
}

/// Returns a host without what makes no difference: case, the default port of its scheme (RFC 3986, section 6.2.3), and
/// the dot of the root. With HTTP/1.1 the scheme is not known, so the default port of either scheme is left out.
fn plain_host<'a>(host: &'a [u8], scheme: Option<&Scheme>) -> Cow<'a, [u8]> {
    let is = |known: &Scheme| scheme.is_none_or(|scheme| scheme == known);
    let port = [(&b":443"[..], is(&Scheme::HTTPS)), (b":80", is(&Scheme::HTTP)), (b":", true)];
    // Returns the host without this ending, if it has it and the ending says nothing.
    let without = |host: &'a [u8], (port, applies): (&[u8], bool)| host.strip_suffix(port).filter(|_| applies);
    let host = port.into_iter().find_map(|port| without(host, port)).unwrap_or(host);
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.iter().any(u8::is_ascii_uppercase) { host.to_ascii_lowercase().into() } else { host.into() }
}
