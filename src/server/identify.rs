//! What a request is: its fingerprint.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

use blake3::hazmat::hash_derive_key_context;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::uri::{Authority, Scheme, Uri};

use super::canonical_json;
use super::context::IdempotencyContext;
use super::media_type::MediaType;
use super::multipart;
use crate::digest::{Digester, Purpose};
use crate::fingerprint::{Fingerprint, FingerprintBuilder};

/// Who asks, where no scope says so.
const CREDENTIALS: [HeaderName; 4] = [AUTHORIZATION, COOKIE, HeaderName::from_static("x-api-key"), PROXY_AUTHORIZATION];

static OPTIONS: Purpose = LazyLock::new(|| hash_derive_key_context("tower-idempotency 2026 fingerprint options v1"));

/// What of a request's body must be the same in a retry.
///
/// Unless a function of the application compares it, the parts of a `multipart/form-data` body are compared without the
/// boundary between them, which browsers draw anew for each try, if the body divides without doubt.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum FingerprintBody {
    /// Its bytes.
    #[default]
    Bytes,
    /// Its canonical form (RFC 8785), where the `Content-Type` is JSON: white space, the order of members and the way in
    /// which numbers are written make no difference. A body that is not JSON, in which an object has a member twice, or with
    /// a number whose value a double doesn't hold, is compared by its bytes.
    CanonicalJson,
    /// What a function of the application makes of it: see [`custom`](Self::custom).
    Custom(CustomBody),
}

type Digest = dyn Fn(&Parts, &Bytes) -> Bytes + Send + Sync;

/// A function of the application's own, made by [`FingerprintBody::custom`].
#[derive(Clone)]
pub struct CustomBody {
    version: Arc<str>,
    digest: Arc<Digest>,
}

impl FingerprintBody {
    /// Compares what `digest` makes of head and body, beside the rest of the request; a form's boundary is left out of its
    /// `Content-Type`, and is in the body as it was sent. The function must give other bytes for whatever is another operation, and
    /// the same for all tries of one.
    ///
    /// `version` names the function: give it another one when what it gives changes. Records made under another version
    /// can't be compared, and their retries are refused (409 `not-verifiable`) instead of being taken for other requests.
    #[must_use]
    pub fn custom(version: &str, digest: impl Fn(&Parts, &Bytes) -> Bytes + Send + Sync + 'static) -> Self {
        Self::Custom(CustomBody { version: version.into(), digest: Arc::new(digest) })
    }

    /// Its name among the options.
    pub(super) fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Bytes => "bytes".into(),
            Self::CanonicalJson => "canonical JSON".into(),
            Self::Custom(custom) => format!("custom {}", custom.version).into(),
        }
    }
}

impl fmt::Debug for FingerprintBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for CustomBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomBody").field("version", &self.version).finish_non_exhaustive()
    }
}

/// What "the same request" is, beyond what it always is.
#[derive(Debug, Clone, Default)]
pub(super) struct Sameness {
    headers: Vec<HeaderName>,
    body: FingerprintBody,
    // Stored beside each fingerprint, so that one made by other options is never compared with it.
    digest: [u8; 8],
}

impl Sameness {
    pub(super) fn with_headers(self, headers: impl IntoIterator<Item = HeaderName>) -> Self {
        let mut headers: Vec<_> = headers.into_iter().collect();
        headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        headers.dedup();
        Self { headers, ..self }.digested()
    }

    pub(super) fn with_body(self, body: FingerprintBody) -> Self {
        Self { body, ..self }.digested()
    }

    pub(super) fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    pub(super) fn body(&self) -> &FingerprintBody {
        &self.body
    }

    fn digested(self) -> Self {
        if self.headers.is_empty() && matches!(self.body, FingerprintBody::Bytes) {
            return Self { digest: [0; 8], ..self };
        }
        let mut digester = Digester::new(&OPTIONS);
        for part in self.headers.iter().map(HeaderName::as_str).chain([&*self.body.name()]) {
            digester.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let mut digest = [0; 8];
        digest.copy_from_slice(&digester.finish()[..8]);
        Self { digest, ..self }
    }

    /// The fingerprint of a request: method, host, path and query as the client sent them, content type, body, and what the
    /// options add; and, unless a scope says who asks, its credentials. Other headers stay out: clients change some between
    /// two tries.
    pub(super) fn fingerprint(&self, parts: &Parts, body: &Bytes, scoped: bool) -> Fingerprint {
        let Target { uri, other, nested } = client_target(parts);
        let mut builder = Fingerprint::builder().options(self.digest).field("method", parts.method.as_str().as_bytes());
        let mut last = None;
        for host in hosts(parts, uri.authority()).map(|host| plain_host(host, uri.scheme())) {
            if last.as_ref() != Some(&host) {
                builder = builder.field("host", &host);
                last = Some(host);
            }
        }
        builder = builder.field("target", target(uri));
        if let Some(other) = other {
            builder = builder.field("other target", target(other));
        }
        if let Some(nested) = nested {
            builder = builder.field("nested", nested.as_bytes());
        }
        for name in &self.headers {
            builder = fold_lines(parts, name, builder, |builder, value| {
                builder.field("header", name.as_str().as_bytes()).field("value", value)
            });
        }
        builder = self.with_content(builder, parts, body);
        if scoped { builder.finish() } else { with_credentials(builder, parts).finish() }
    }

    /// Content type and body, which belong together: what a body is compared by depends on its type.
    fn with_content(&self, builder: FingerprintBuilder, parts: &Parts, body: &Bytes) -> FingerprintBuilder {
        let values = parts.headers.get_all(CONTENT_TYPE);
        let mut first_two = values.iter();
        let only = first_two.next().filter(|_| first_two.next().is_none());
        let Some(mut media_type) = only.and_then(MediaType::of) else {
            let builder = values.iter().fold(builder, |builder, value| builder.field("content-type", value.as_bytes()));
            return self.with_body_of(builder, parts, body, false);
        };
        let is_custom = matches!(self.body, FingerprintBody::Custom(_));
        let pieces = media_type.form_boundary().map(|boundary| multipart::pieces(body, boundary));
        if let Some(pieces) = &pieces
            && (is_custom || pieces.is_some())
        {
            media_type.remove_boundary();
        }
        let builder = builder.field("content-type", media_type.canonical().as_bytes());
        match pieces {
            Some(Some(pieces)) if !is_custom => {
                pieces.into_iter().fold(builder, |builder, piece| builder.field("multipart", piece))
            }
            _ => self.with_body_of(builder, parts, body, media_type.is_json()),
        }
    }

    fn with_body_of(
        &self,
        builder: FingerprintBuilder,
        parts: &Parts,
        body: &Bytes,
        is_json: bool,
    ) -> FingerprintBuilder {
        match &self.body {
            FingerprintBody::Custom(custom) => builder.field("custom", &(custom.digest)(parts, body)),
            FingerprintBody::CanonicalJson if is_json => match canonical_json::canonical(body) {
                Some(canonical) => builder.field("json", &canonical),
                None => builder.field("body", body),
            },
            FingerprintBody::CanonicalJson | FingerprintBody::Bytes => builder.field("body", body),
        }
    }
}

fn with_credentials(builder: FingerprintBuilder, parts: &Parts) -> FingerprintBuilder {
    CREDENTIALS.iter().fold(builder.with_credentials(), |builder, name| {
        fold_lines(parts, name, builder, |builder, value| builder.credential(name.as_str(), value))
    })
}

/// Goes through the lines of a field, as HTTP/1.1 has them: HTTP/2 may split cookies (RFC 9113, section 8.2.3).
fn fold_lines<T>(parts: &Parts, name: &HeaderName, init: T, mut take: impl FnMut(T, &[u8]) -> T) -> T {
    let mut values = parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let Some(first) = values.next() else { return init };
    match values.next() {
        None => take(init, first),
        Some(second) if *name == COOKIE => {
            let all: Vec<_> = [first, second].into_iter().chain(values).collect();
            take(init, &all.join(&b"; "[..]))
        }
        Some(second) => [first, second].into_iter().chain(values).fold(init, take),
    }
}

/// HTTP/2 names the host in the URI, HTTP/1.1 in a header; a retry may use the other one, so what both say counts once.
/// Where they say different things, all of it counts: nobody knows which one the application reads.
fn hosts<'a>(parts: &'a Parts, authority: Option<&'a Authority>) -> impl Iterator<Item = &'a [u8]> {
    let named = authority.map(|authority| {
        let name = authority.as_str();
        name.rsplit_once('@').map_or(name, |(_, host)| host).as_bytes()
    });
    named.into_iter().chain(parts.headers.get_all(HOST).iter().map(HeaderValue::as_bytes))
}

/// A host without what makes no difference: case, the default port of its scheme (RFC 3986, section 6.2.3), the dot of the
/// root. Over HTTP/1.1 nobody knows the scheme.
fn plain_host<'a>(host: &'a [u8], scheme: Option<&Scheme>) -> Cow<'a, [u8]> {
    let is = |known: &Scheme| scheme.is_none_or(|scheme| scheme == known);
    let port = [(&b":443"[..], is(&Scheme::HTTPS)), (b":80", is(&Scheme::HTTP)), (b":", true)];
    let without = |host: &'a [u8], (port, applies): (&[u8], bool)| host.strip_suffix(port).filter(|_| applies);
    let host = port.into_iter().find_map(|port| without(host, port)).unwrap_or(host);
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.iter().any(u8::is_ascii_uppercase) { host.to_ascii_lowercase().into() } else { host.into() }
}

/// Where the client sent the request; and, where that is in doubt, the other place where it may have.
///
/// A nested router strips its prefix from the URI and leaves the client's in an extension. In a request that a handler makes
/// of its own request's head, that is still there and says where the other one went. Two signs tell them apart: what an
/// enclosing exchange has seen is stale, and what a prefix was stripped from ends with what is left of it. Where they
/// disagree, both count, so that two requests are never taken for one.
fn client_target(parts: &Parts) -> Target<'_> {
    let differs = |original: &&Uri| original.path_and_query() != parts.uri.path_and_query();
    let Some(original) = original_uri(parts).filter(differs) else {
        return Target { uri: &parts.uri, other: None, nested: None };
    };
    match (is_stale(original, parts), is_stripped(original, &parts.uri)) {
        (false, true) => Target { uri: original, other: None, nested: None },
        // A nested router may have stripped a prefix from it, of which its pattern is left.
        (true, false) => Target { uri: &parts.uri, other: None, nested: nested_path(parts) },
        (true, true) | (false, false) => Target { uri: original, other: Some(&parts.uri), nested: nested_path(parts) },
    }
}

struct Target<'a> {
    uri: &'a Uri,
    other: Option<&'a Uri>,
    nested: Option<&'a str>,
}

fn is_stale(original: &Uri, parts: &Parts) -> bool {
    parts.extensions.get().is_some_and(|enclosing: &IdempotencyContext| enclosing.has_seen(original))
}

fn is_stripped(original: &Uri, uri: &Uri) -> bool {
    let (before, left) = (original.path(), uri.path());
    original.query() == uri.query() && (before.ends_with(left) && left != "/")
}

fn target(uri: &Uri) -> &[u8] {
    uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes()
}

/// What a request says of where its client sent it, stale or not: what its exchange has seen.
pub(super) fn seen_uri(parts: &Parts) -> &Uri {
    original_uri(parts).unwrap_or(&parts.uri)
}

#[cfg(feature = "axum")]
fn original_uri(parts: &Parts) -> Option<&Uri> {
    parts.extensions.get::<axum::extract::OriginalUri>().map(|original| &original.0)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_default_port_and_final_dot_of_a_host_make_no_difference() {
        let plain = |host: &str, scheme: Option<&Scheme>| {
            String::from_utf8(plain_host(host.as_bytes(), scheme).into_owned()).unwrap()
        };
        for host in ["pay.example", "Pay.Example", "pay.example.", "pay.example:443", "PAY.example.:80", "pay.example:"]
        {
            assert_eq!(plain(host, None), "pay.example", "{host}");
        }
        assert_eq!(plain("pay.example:80", Some(&Scheme::HTTPS)), "pay.example:80");
        assert_eq!(plain("pay.example:80", Some(&Scheme::HTTP)), "pay.example");
        assert_eq!(plain("pay.example:8443", None), "pay.example:8443");
        assert_eq!(plain("[::1]:443", None), "[::1]");
        assert_eq!(plain("[2001:db8::443]", None), "[2001:db8::443]");
        assert_eq!(plain("pay.example:0443", None), "pay.example:0443", "unusual, and so compared as it is");
    }
}
