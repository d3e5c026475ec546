//! Makes a request's fingerprint, which says whether two requests are the same; and before that its `client`, whose
//! share of the bounds it takes.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock};

use ahash::RandomState;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HeaderName, HeaderValue};
use http::request::Parts;

use super::canonical_json;
use super::credentials::Credentials;
use super::media_type::MediaType;
use super::multipart;
use super::target::Target;
use crate::digest::{DigestKey, Digester, purpose};
use crate::fingerprint::{Fingerprint, FingerprintBuilder, RequestPart};
use crate::key::{RecordId, Scope};
use crate::server::header::lines;
use crate::server::pointer::{NotAPlace, Pointer};
use crate::slots::Client;

/// The purpose of the digest of the options. With another text, records made under options could not be compared any
/// more.
static OPTIONS: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 fingerprint options v1"));

/// The secret of this process with which clients are distinguished.
static CLIENTS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The part of a request's body that must be the same in a retry.
///
/// Unless a function of the application compares it, the parts of a `multipart/form-data` body are compared without the
/// boundary between them, which browsers draw anew for each try, if the body divides without doubt.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum FingerprintBody {
    /// Its bytes.
    #[default]
    Bytes,
    /// Its canonical form (RFC 8785), if the `Content-Type` is JSON: white space, the order of members and the way in
    /// which numbers are written make no difference. A body is compared by its bytes if it is not JSON, if an object in
    /// it has a member twice, or if a double doesn't hold the value of a number in it.
    CanonicalJson,
    /// Its canonical form without some members: see [`json_without`](Self::json_without).
    JsonWithout(LeftOut),
    /// The bytes that a function of the application makes of it: see [`custom`](Self::custom).
    Custom(CustomBody),
}

/// The members that [`FingerprintBody::json_without`] leaves out.
#[derive(Clone)]
pub struct LeftOut(Arc<[Pointer]>);

/// Returns the bytes by which a body is compared, or `None` for the body's own.
type Digest = dyn Fn(&Parts, &Bytes) -> Option<Bytes> + Send + Sync;

/// A function of the application's own, made by [`FingerprintBody::custom`].
#[derive(Clone)]
pub struct CustomBody {
    /// The application's name for what `digest` does. It is digested with the options.
    version: Arc<str>,
    digest: Arc<Digest>,
}

impl FingerprintBody {
    /// Compares what `digest` makes of head and body, in addition to the rest of the request. A form's boundary is left
    /// out of the compared `Content-Type`, and is in the body as it was sent. The function must return the same bytes
    /// for all tries of one operation, and other bytes for any other operation. A body for which it returns `None` is
    /// compared as [`Bytes`](Self::Bytes) has it.
    ///
    /// `version` names the function: change it whenever what the function returns changes. Records made under another
    /// version can't be compared, and their retries are refused (409 `not-verifiable`) instead of being taken for other
    /// requests.
    #[must_use]
    pub fn custom<D>(version: &str, digest: impl Fn(&Parts, &Bytes) -> D + Send + Sync + 'static) -> Self
    where
        D: Into<Option<Bytes>>,
    {
        let digest = Arc::new(move |parts: &Parts, body: &Bytes| digest(parts, body).into());
        Self::Custom(CustomBody { version: version.into(), digest })
    }

    /// Compares JSON as [`CanonicalJson`](Self::CanonicalJson) does, without the members to which these JSON pointers
    /// (RFC 6901) lead: those that each try has anew, such as the `/id` of JSON-RPC or a time, and the key's own, so
    /// that a client may move it between header and body. What holds such a member is compared without it, and is left
    /// out, too, if it is an object that is empty then; an element of an array is compared as `null`. A body whose
    /// `Content-Type` is not JSON is compared by its bytes.
    ///
    /// **Two requests that differ in these members alone are one operation**: the second gets the recorded answer.
    ///
    /// # Errors
    /// [`NotAPlace`] for a text that is no JSON pointer, or leads to the whole body.
    pub fn json_without<'a>(pointers: impl IntoIterator<Item = &'a str>) -> Result<Self, NotAPlace> {
        let mut pointers = pointers.into_iter().map(Pointer::new).collect::<Result<Vec<_>, _>>()?;
        // Their order says nothing, and is not digested.
        pointers.sort_by(|one, other| one.text.cmp(&other.text));
        pointers.dedup_by(|one, other| one.text == other.text);
        Ok(Self::JsonWithout(LeftOut(pointers.into())))
    }

    /// The members that are left out of a canonical form, if bodies are compared by that.
    fn canonical_without(&self) -> Option<&[Pointer]> {
        match self {
            Self::CanonicalJson => Some(&[]),
            Self::JsonWithout(LeftOut(pointers)) => Some(pointers),
            Self::Bytes | Self::Custom(_) => None,
        }
    }

    /// Its name among the options, which is digested with them.
    fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Bytes => "bytes".into(),
            Self::CanonicalJson => "canonical JSON".into(),
            // A pointer begins with `/` and may have blanks: its length keeps two lists apart.
            Self::JsonWithout(LeftOut(pointers)) => {
                let without = pointers.iter().map(|pointer| format!(" {}:{}", pointer.text.len(), pointer.text));
                format!("canonical JSON leaving out{}", without.collect::<String>()).into()
            }
            Self::Custom(custom) => format!("custom {}", custom.version).into(),
        }
    }
}

impl fmt::Debug for FingerprintBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CustomBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomBody").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The options that say when two requests are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sameness {
    /// The headers that must be equal in a retry, by their names in order.
    headers: Vec<HeaderName>,
    body: FingerprintBody,
    // It is stored with each fingerprint, so that fingerprints made under different options are never compared.
    digest: [u8; 8],
    /// The options that say who asks. They are not in the digest: see there.
    pub(crate) credentials: Credentials,
}

impl Sameness {
    /// Sets the headers that must be equal, without regard to the order in which they are named.
    pub(crate) fn of_headers(&mut self, headers: impl IntoIterator<Item = HeaderName>) {
        self.headers = headers.into_iter().collect();
        self.headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        self.headers.dedup();
        self.digest = self.digested();
    }

    pub(crate) fn of_body(&mut self, body: FingerprintBody) {
        self.body = body;
        self.digest = self.digested();
    }

    /// Returns whether bodies are compared in this way.
    pub(crate) fn has_body(&self, body: &FingerprintBody) -> bool {
        self.body.name() == body.name()
    }

    /// Returns the digest of these options: zeros for the defaults, as `Fingerprint::builder` has it.
    fn digested(&self) -> [u8; 8] {
        let mut digest = [0; 8];
        if self.headers.is_empty() && matches!(self.body, FingerprintBody::Bytes) {
            return digest;
        }
        let mut digester = Digester::new(&OPTIONS);
        for part in self.headers.iter().map(HeaderName::as_str).chain([&*self.body.name()]) {
            digester.part(part.as_bytes());
        }
        digest.copy_from_slice(&digester.finish()[..8]);
        digest
    }

    /// The fingerprint of a request for the record `id`. It covers method, host, path and query as the client sent
    /// them, content type, body, what the options add, and the credentials, unless a scope says who asks. Other headers
    /// stay out, because clients change some of them between two tries. The operation is method, path, query and body.
    /// `credentials` are the headers that say who asks. It is `None` if a scope does.
    pub(crate) fn fingerprint(
        &self,
        id: &RecordId,
        parts: &Parts,
        body: &Bytes,
        credentials: Option<&[&HeaderName]>,
    ) -> Fingerprint {
        // Labels, their order, and the forms of values are hashed: a change needs a new `VERSION` in
        // `src/fingerprint.rs`.
        let mut builder = Fingerprint::builder(id);
        builder.set_options(self.digest);
        builder.add_field("method", parts.method.as_str().as_bytes());
        builder.mark(RequestPart::Method, parts.method.as_str().as_bytes());
        Target::of(parts).add_to(&mut builder, parts);
        for name in &self.headers {
            for_each_line(parts, name, |value| {
                builder.add_context_field("header", name.as_str().as_bytes());
                builder.add_context_field("value", value);
                builder.mark(RequestPart::Headers, name.as_str().as_bytes());
                builder.mark(RequestPart::Headers, value);
            });
        }
        self.add_content(&mut builder, parts, body);
        if let Some(names) = credentials {
            self.credentials.add_to(&mut builder, parts, names);
        }
        builder.finish()
    }

    /// Adds content type and body. What a body is compared by depends on its type.
    fn add_content(&self, builder: &mut FingerprintBuilder, parts: &Parts, body: &Bytes) {
        let custom = match &self.body {
            FingerprintBody::Custom(custom) => (custom.digest)(parts, body),
            _ => None,
        };
        let mut first_two = lines(&parts.headers, CONTENT_TYPE);
        // The only content type, or `None` if there are several or none.
        let only = first_two.next().filter(|_| first_two.next().is_none());
        let Some(mut media_type) = only.and_then(MediaType::of) else {
            // There is none, there are several, or it can't be parsed: all are compared as they were sent.
            for value in lines(&parts.headers, CONTENT_TYPE) {
                builder.add_context_field("content-type", value.as_bytes());
                builder.mark(RequestPart::Headers, value.as_bytes());
            }
            return self.add_body(builder, custom.as_ref(), body, false);
        };
        let boundary = media_type.form_boundary();
        let is_form = boundary.is_some();
        // A body that the application's function has taken is not divided.
        let form = boundary.filter(|_| custom.is_none()).and_then(|boundary| multipart::parts(body, boundary));
        // The boundary still counts if the body is compared by its own bytes.
        if is_form && (custom.is_some() || form.is_some()) {
            media_type.remove_boundary();
        }
        let canonical = media_type.canonical();
        builder.add_context_field("content-type", canonical.as_bytes());
        builder.mark(RequestPart::Headers, canonical.as_bytes());
        match form {
            Some(form) => form.into_iter().for_each(|part| builder.add_field("multipart", part)),
            None => self.add_body(builder, custom.as_ref(), body, media_type.is_json()),
        }
    }

    /// Adds the body, in the form by which it is compared. The labels keep the forms apart.
    fn add_body(&self, builder: &mut FingerprintBuilder, custom: Option<&Bytes>, body: &Bytes, is_json: bool) {
        if let Some(custom) = custom {
            return builder.add_field("custom", custom);
        }
        let without = self.body.canonical_without().filter(|_| is_json);
        match without.and_then(|left_out| canonical_json::canonical(body, left_out)) {
            Some(canonical) => builder.add_field("json", &canonical),
            None => builder.add_field("body", body),
        }
    }

    /// Returns the client that sends a request, for the limits of one client: its scope, or its credentials if there is
    /// none. All requests without either come from one client. `credentials` are the headers that say who asks.
    pub(crate) fn client(&self, parts: &Parts, scope: Option<&Scope>, credentials: Option<&[&HeaderName]>) -> Client {
        let mut hasher = CLIENTS.build_hasher();
        scope.hash(&mut hasher);
        if let Some(names) = credentials {
            self.credentials.for_each(parts, names, |name, value| (name, value).hash(&mut hasher));
        }
        Client(hasher.finish())
    }
}

/// Passes on the lines of a header field, as HTTP/1.1 would have them: cookies that HTTP/2 has split are joined
/// (RFC 9113, section 8.2.3).
fn for_each_line(parts: &Parts, name: &HeaderName, mut take: impl FnMut(&[u8])) {
    let values = lines(&parts.headers, name).map(HeaderValue::as_bytes);
    if *name == COOKIE {
        let all: Vec<_> = values.collect();
        if !all.is_empty() {
            take(&all.join(&b"; "[..]));
        }
        return;
    }
    // Several lines of another field count one by one.
    values.for_each(take);
}
