//! Whose a key is.

use http::request::Parts;
use http::{HeaderName, StatusCode};
use tower_idempotency::{AnyStore, IdempotencyLayer, Rejection, Scope};

use crate::failure::Failure;

/// Why the proxy does not start without a choice.
const CHOOSE: &str = "say whose a key is, by one of
  --scope-header NAME    a header such as X-Account names the account, and a gateway in front has set it: each account
                         has keys of its own
  --scope-credentials    the credentials do (Authorization, Cookie and others): each has keys of its own, and a retry
                         with a renewed token is another operation, which is sent to the service
  --one-account          all requests are one account's: a key that comes with other credentials is refused, and the
                         service gets one key for equal requests, from any client
over a store that has records already, another choice than before knows none of their keys: requests run again";

/// Whose a key is, as the command line says it.
#[derive(Debug)]
pub(super) enum Whose {
    Header(Vec<HeaderName>),
    Credentials,
    One,
}

impl Whose {
    pub(super) fn of(headers: Vec<HeaderName>, credentials: bool, one: bool) -> Result<Self, Failure> {
        match (headers.is_empty(), credentials, one) {
            (false, ..) => Ok(Self::Header(headers)),
            (_, true, _) => Ok(Self::Credentials),
            (.., true) => Ok(Self::One),
            (true, false, false) => Err(Failure::Usage(CHOOSE.to_owned())),
        }
    }

    pub(super) fn of_layer(self, layer: IdempotencyLayer<AnyStore>) -> IdempotencyLayer<AnyStore> {
        match self {
            Self::Header(names) => layer.scope(move |parts: &Parts| scope(&names, parts)),
            Self::Credentials => {
                let of = layer.clone();
                layer.scope(move |parts: &Parts| of.scope_of_credentials(parts))
            }
            Self::One => layer,
        }
    }
}

/// The scope of the values of these headers. A request with none of them has no scope. One that has some of them, or
/// one twice, is refused: it would belong with others.
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
}
