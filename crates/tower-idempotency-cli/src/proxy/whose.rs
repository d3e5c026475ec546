//! Whose a key is.

use http::request::Parts;
use http::{HeaderName, StatusCode};
use tower_idempotency::{AnyStore, IdempotencyLayer, Rejection, Scope};
use tower_idempotency_proxy::is_passed_on;

use crate::arguments::Proxy;
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
    /// `key` is the header of the key, unless it is `Idempotency-Key`.
    pub(super) fn of(proxy: &Proxy, key: Option<&HeaderName>) -> Result<Self, Failure> {
        let headers = &proxy.scope_header;
        require_passed_on("--scope-header", headers)?;
        let is_own = |name: &HeaderName| Some(name) == key || name.as_str().starts_with("idempotency-");
        if headers.iter().enumerate().any(|(at, name)| is_own(name) || headers[..at].contains(name)) {
            return Err(Failure::usage("--scope-header: name each header once, and none of the key's own"));
        }
        match (headers.is_empty(), proxy.scope_credentials, proxy.one_account) {
            (false, ..) => Ok(Self::Header(headers.clone())),
            (_, true, _) => Ok(Self::Credentials),
            (.., true) => Ok(Self::One),
            (true, false, false) => Err(Failure::usage(CHOOSE)),
        }
    }

    pub(super) fn of_layer(self, layer: IdempotencyLayer<AnyStore>) -> IdempotencyLayer<AnyStore> {
        match self {
            Self::Header(names) => layer.scope(move |parts: &Parts| scope(&names, parts)),
            Self::Credentials => {
                let of = layer.clone();
                layer.scope(move |parts: &Parts| of.scope_of_credentials(&seen(parts)))
            }
            Self::One => layer,
        }
    }
}

/// Refuses headers that the service would not see as the layer does.
pub(super) fn require_passed_on(setting: &str, names: &[HeaderName]) -> Result<(), Failure> {
    match names.iter().find(|name| !is_passed_on(name)) {
        Some(name) => Err(Failure::usage(format!("{setting} {name}: the service does not get it as it was sent"))),
        None => Ok(()),
    }
}

/// Returns the head without what the service does not get: it tells no accounts apart there.
fn seen(parts: &Parts) -> Parts {
    let mut seen = parts.clone();
    parts.headers.keys().filter(|name| !is_passed_on(name)).for_each(|name| drop(seen.headers.remove(name)));
    seen
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

    // Seeded fault: the whole head counts.
    #[test]
    fn credentials_that_the_service_does_not_get_tell_no_accounts_apart() {
        let layer = IdempotencyLayer::new(AnyStore::new(tower_idempotency::MemoryStore::new()));
        let of = |name: &str, value: &str| {
            let request = Request::post("/").header("authorization", "Bearer alice").header(name, value);
            layer.scope_of_credentials(&seen(&request.body(()).unwrap().into_parts().0))
        };
        let alice = of("x-other", "1");
        assert!(alice.is_some());
        for name in ["proxy-authorization", "api_key", "access_token"] {
            assert_eq!(of(name, "Basic YTpi"), alice, "{name}");
        }
        assert_ne!(of("x-api-key", "1"), alice);
    }

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
