//! A call: the request that is to be made, its key, and the order it belongs to. It is checked when it is made, becomes
//! JSON when it is put in, is read back for a lease, and becomes a request for each try.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use tower_idempotency_client::{InvalidKey, Key};

/// The most bytes that a partition key may have.
const MAX_PARTITION_KEY: usize = 255;
/// The most bytes that a host may have. Names have at most 253.
const MAX_HOST: usize = 255;
/// How many headers a client may add to those of a call.
const ADDED_HEADERS: usize = 16;
/// Headers that a client writes itself, for the body as it is sent, or that say how to go on with a connection.
const OF_CONNECTIONS: [&str; 9] = [
    "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
    "upgrade",
];
/// The header in which a request may bring its key.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request with an unsafe method, and the key that each attempt to send it has.
///
/// The key names the call: it is stored once, and [`Outbox::get`](crate::Outbox::get) finds it by its key.
#[derive(Clone, PartialEq)]
pub struct Call {
    key: Key,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    partition_key: Option<String>,
}

impl Call {
    /// Takes a request. Its key is the [`Key`] in its extensions, or the one in its header `Idempotency-Key`, or a
    /// random one. Headers that belong to a connection, such as `Content-Length`, are not sent: the client writes its
    /// own.
    ///
    /// # Errors
    /// The request can't be stored, or not be made: see [`InvalidCall`].
    pub fn new(request: Request<impl Into<Bytes>>) -> Result<Self, InvalidCall> {
        let (mut head, body) = request.into_parts();
        let lines = head.headers.get_all(&KEY).iter().count();
        let key = match (head.extensions.remove::<Key>(), head.headers.remove(&KEY)) {
            (Some(key), None) => key,
            (None, Some(line)) if lines == 1 => Key::try_from(&line)?,
            (None, None) => Key::random(),
            _ => return Err(InvalidKey::Doubled.into()),
        };
        let headers = head.headers;
        Self { key, method: head.method, uri: head.uri, headers, body: body.into(), partition_key: None }.checked()
    }

    /// Sends this call after those that were put in with the same partition key before it have ended. One that was
    /// given up, or set aside as damaged, holds the later ones back until an operator has settled it. One that was
    /// refused lets them go; if an operator retries it, it is sent at once, even while a later one is under way. Over
    /// sled, damage may take the partition key itself: such a call is set aside, and holds none back.
    ///
    /// Two transactions that overlap have no order, unless each of them takes a lock before it puts its call in, for
    /// instance on the row of the customer.
    ///
    /// # Errors
    /// [`InvalidCall::PartitionKey`]: it is empty, has more than 255 bytes, or has a control character.
    pub fn in_order_of(mut self, partition_key: impl Into<String>) -> Result<Self, InvalidCall> {
        self.partition_key = Some(partition_key.into());
        self.checked()
    }

    /// The key that is sent with each attempt.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The absolute URI.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The headers, without that of the key.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The partition key, if the call has one.
    #[must_use]
    pub fn partition_key(&self) -> Option<&str> {
        self.partition_key.as_deref()
    }

    /// Where it is sent to, as each database has it: scheme, host and port, in lower case, without a default port.
    #[must_use]
    pub fn destination(&self) -> String {
        let (scheme, authority) = (self.uri.scheme_str(), self.uri.authority());
        let authority = authority.map(Authority::as_str).unwrap_or_default();
        let destination = format!("{}://{authority}", scheme.unwrap_or_default()).to_lowercase();
        let default = if destination.starts_with("https:") { ":443" } else { ":80" };
        destination.strip_suffix(default).unwrap_or(&destination).to_owned()
    }

    /// The request, for an attempt.
    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        self.method.clone_into(request.method_mut());
        self.uri.clone_into(request.uri_mut());
        self.headers.clone_into(request.headers_mut());
        // They belong to the connection on which the request came that was stored.
        for name in OF_CONNECTIONS {
            request.headers_mut().remove(name);
        }
        request.extensions_mut().insert(self.key.clone());
        request
    }

    /// The call as it is stored.
    pub(crate) fn to_json(&self) -> String {
        // All header values were checked. Of two equal calls, the texts are equal, however their headers came about.
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let mut headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        headers.sort_by(|(name, _), (other, _)| name.cmp(other));
        let stored = StoredCall {
            key: self.key.as_str().to_owned(),
            method: self.method.to_string(),
            uri: self.uri.to_string(),
            headers,
            body: STANDARD.encode(&self.body),
            partition_key: self.partition_key.clone(),
        };
        serde_json::to_string(&stored).unwrap_or_else(|_| unreachable!("texts alone"))
    }

    /// Reads what was stored. An error says what is damaged.
    pub(crate) fn from_json(json: &str) -> Result<Self, String> {
        let stored: StoredCall =
            serde_json::from_str(json).map_err(|error| format!("it is no call: {}", unread(&error)))?;
        let damaged = |what: &str, why: &dyn fmt::Display| format!("its {what} is damaged: {why}");
        let mut headers = HeaderMap::new();
        for (name, value) in stored.headers {
            let name = name.parse::<HeaderName>().map_err(|error| damaged("headers", &error))?;
            let value = HeaderValue::try_from(value).map_err(|error| damaged("headers", &error))?;
            headers.try_append(name, value).map_err(|error| damaged("headers", &error))?;
        }
        headers.try_reserve(ADDED_HEADERS).map_err(|error| damaged("headers", &error))?;
        let call = Self {
            key: Key::new(stored.key).map_err(|error| damaged("key", &error))?,
            method: stored.method.parse().map_err(|error| damaged("method", &error))?,
            uri: stored.uri.parse().map_err(|error| damaged("uri", &error))?,
            headers,
            body: STANDARD.decode(stored.body).map_err(|error| damaged("body", &error))?.into(),
            partition_key: stored.partition_key,
        };
        call.checked().map_err(|error| error.to_string())
    }

    fn checked(self) -> Result<Self, InvalidCall> {
        if self.method.is_safe() {
            return Err(InvalidCall::SafeMethod);
        }
        match (self.uri.scheme_str(), self.uri.authority()) {
            (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
                return Err(InvalidCall::Credential { place: "the URI".to_owned() });
            }
            (Some("http" | "https"), Some(authority)) if is_plain(authority) && self.method != Method::CONNECT => {}
            _ => return Err(InvalidCall::Uri),
        }
        for (name, value) in &self.headers {
            if value.is_sensitive() || [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name) {
                return Err(InvalidCall::Credential { place: name.to_string() });
            }
            if value.to_str().is_err() {
                return Err(InvalidCall::Header { name: name.to_string() });
            }
        }
        let is_key = |key: &String| (1..=MAX_PARTITION_KEY).contains(&key.len()) && !key.contains(char::is_control);
        let is_ordered_by_text = self.partition_key.as_ref().is_none_or(is_key);
        if is_ordered_by_text { Ok(self) } else { Err(InvalidCall::PartitionKey) }
    }
}

/// Returns where a JSON text can't be read. The error itself may quote a value, and reasons are in logs and lists.
pub(crate) fn unread(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Eof => "it breaks off",
        Category::Data => "a member is missing, unknown or of another type",
        Category::Syntax | Category::Io => "it is not JSON",
    };
    format!("{what}, at line {}, column {}", error.line(), error.column())
}

/// Whether a database can keep the authority, and compare it with others as a text.
fn is_plain(authority: &Authority) -> bool {
    let host = authority.host();
    host.len() <= MAX_HOST
        && match authority.port() {
            Some(port) => port.as_str() == port.as_u16().to_string(),
            // It has one that is none.
            None => authority.as_str() == host,
        }
}

impl fmt::Debug for Call {
    /// Leaves out headers and body, which may have what does not belong into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, uri) = (&self.method, &self.uri);
        formatter.debug_struct("Call").field("method", method).field("uri", uri).finish_non_exhaustive()
    }
}

/// A call in JSON. Programs in other languages may write it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCall {
    key: String,
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    /// In base64.
    body: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_key: Option<String>,
}

/// Why a request can't be put into an outbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCall {
    /// Its key is not valid.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// Its method is safe (RFC 9110 section 9.2.1): it has no effect that must not be lost.
    #[error("a request with a safe method needs no outbox; send it")]
    SafeMethod,
    /// Its URI is not absolute, which that of CONNECT never is; or it has a host of more than 255 bytes, or a port
    /// that is not written as a number from 0 to 65535 without zeros before it.
    #[error(
        "a call needs an absolute URI with the scheme http or https, a valid host, and a port as a plain number; and \
        CONNECT is no call"
    )]
    Uri,
    /// It has a credential, which would be kept where others read it, and may have expired when the call is made.
    #[error("{place} has a credential, which is not stored; let the relay's client add it to each request")]
    #[non_exhaustive]
    Credential {
        /// The header, or the URI.
        place: String,
    },
    /// A header has a value that is not printable ASCII.
    #[error("the header {name} is not printable ASCII, and can't be stored as text")]
    #[non_exhaustive]
    Header {
        /// The header.
        name: String,
    },
    /// Its partition key is empty, has more than 255 bytes, or has a control character.
    #[error("a partition key has 1 to 255 bytes, and no control character")]
    PartitionKey,
}
