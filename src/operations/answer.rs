//! An outcome, as a layer or a consumer records it.

use std::fmt;

use bytes::Bytes;

/// An outcome that retries get.
///
/// `Debug` shows its length, and not its content.
#[derive(Clone)]
#[non_exhaustive]
pub enum Answer {
    /// The answer of a layer's handler.
    #[cfg(feature = "server")]
    Http(http::Response<Bytes>),
    /// The outcome of a consumer: what its effect produced, as JSON.
    Bytes(Bytes),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "server")]
            Self::Http(answer) => write!(f, "Http({}, {} bytes)", answer.status(), answer.body().len()),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
        }
    }
}

/// The form in which outcomes are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// HTTP answers: the operations are a layer's.
    #[cfg(feature = "server")]
    Http,
    /// Bytes, which are JSON: the operations are a consumer's.
    Bytes,
    /// Either: it is not known whose the operations are.
    #[cfg(feature = "server")]
    Any,
}
