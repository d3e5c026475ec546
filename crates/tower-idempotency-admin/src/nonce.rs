//! The nonce of the application's own content security policy.

use std::sync::Arc;

/// The nonce of this answer in your own `Content-Security-Policy` (CSP Level 3). Put it into the request's extensions,
/// in a layer outside. The page's two references, to its style sheet and its script, then have it.
///
/// You need this only if your policy permits no script and no style by `'self'`. The page has no inline script and no
/// inline style. Your policy also has to permit `connect-src 'self'` (the live view) and `img-src 'self'` (the icon),
/// and `form-action 'self'` if it names that directive. Append your header to the page's own, and do not replace it:
/// browsers apply both.
///
/// ```
/// use tower_idempotency_admin::Nonce;
///
/// # fn random() -> String { "dGhpcyBpcyBub3QgcmFuZG9t".into() }
/// # let mut request = http::Request::new(());
/// request.extensions_mut().insert(Nonce::new(random())?);
/// # Ok::<(), tower_idempotency_admin::NonceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(Arc<str>);

/// A text is not a nonce: it is empty, or has a character that is not one of Base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a nonce has the characters of Base64, and is not empty")]
#[non_exhaustive]
pub struct NonceError;

impl Nonce {
    /// Makes a nonce of `text`, as it is in your policy after `nonce-`.
    ///
    /// # Errors
    /// [`NonceError`] for what can't be in a policy.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, NonceError> {
        let text = text.into();
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_base64) { Err(NonceError) } else { Ok(Self(text)) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
