//! The return types of the function that says whose a key is.

use crate::key::Scope;
use crate::server::reject::rejection::Rejection;

/// A value that the function of [`scope`](crate::IdempotencyLayer::scope) may return: a [`Scope`], an `Option<Scope>`,
/// or a `Result` of one of them whose error is a [`Rejection`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whose a key is",
    label = "a `scope` function can't return this",
    note = "to make a scope of a text, write `|parts: &Parts| Ok(Scope::new(account)?)`, with `http::request::Parts` and \
            `tower_idempotency::Scope`; an empty text is then answered with 401",
    note = "to refuse a request with another status, return `Err(Rejection::custom(status, title, detail))`, or \
            `Err(status.into())`; the error of the `Result` is a `tower_idempotency::Rejection`",
    note = "the function returns a `Scope`, an `Option<Scope>`, or a `Result` of one of them whose error is a `Rejection`"
)]
pub trait IntoScope {
    /// The scope, `None` if the request has none, or the rejection with which the request is answered.
    ///
    /// # Errors
    /// The rejection, if the function has returned one.
    fn into_scope(self) -> Result<Option<Scope>, Rejection>;
}

impl IntoScope for Scope {
    fn into_scope(self) -> Result<Option<Scope>, Rejection> {
        Ok(Some(self))
    }
}

impl IntoScope for Option<Scope> {
    fn into_scope(self) -> Result<Option<Scope>, Rejection> {
        Ok(self)
    }
}

// It is the only one for a `Result`, so that the compiler knows the error of a closure that uses `?`.
impl<T: IntoScope> IntoScope for Result<T, Rejection> {
    fn into_scope(self) -> Result<Option<Scope>, Rejection> {
        self?.into_scope()
    }
}
