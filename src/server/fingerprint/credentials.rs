//! The part of a fingerprint that says who asks, where no scope does. A request finds the `names` of its credentials
//! once, and uses them twice: for its client's share of the bounds (`for_each`), and for its fingerprint (`add_to`).
//!
//! A header that is compared and means nothing costs a retry its answer; one that means something and is not compared
//! gives one client the answer of another. So the list of headers is long, and values are compared as they are. Three
//! things make no difference: how a scheme's name is written (its case, and the blanks after it), the order of cookies
//! with different names, and cookies that others than the application set. A payment, in `Authorization` with the
//! scheme `Payment`, is no credential.

use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use http::request::Parts;

use super::credential_lists::{CREDENTIAL_HEADERS, EXEMPT_HEADERS, IGNORED_COOKIES};
use crate::fingerprint::FingerprintBuilder;
use crate::key::Scope;
use crate::server::header::lines;
use crate::server::not_applied::is_payment;

/// Identifies a client that has nothing else (RFC 9421). Of others it says nothing, and is new with each try.
const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// The options that say how a client is recognized.
///
/// They are digested with the credentials and not with the other options: to a client that is not the recorded one,
/// records that were made under other options must look like those that were made under the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    /// Headers that count besides the list.
    headers: Vec<HeaderName>,
    /// The cookies that count, if the application says which.
    cookies: Option<Vec<String>>,
}

impl Credentials {
    pub(crate) fn of_headers(&mut self, names: impl IntoIterator<Item = HeaderName>) {
        // A name that is on the list counts in any case, and must not change the rules that are digested.
        self.headers = names.into_iter().filter(|name| !is_credential(name)).collect();
        self.headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        self.headers.dedup();
    }

    pub(crate) fn of_cookies(&mut self, names: impl IntoIterator<Item = impl Into<String>>) {
        let mut names: Vec<_> = names.into_iter().map(Into::into).collect();
        names.sort();
        names.dedup();
        self.cookies = Some(names);
    }

    /// Returns the names of the cookies that count, if the application says which.
    pub(crate) fn cookie_names(&self) -> &[String] {
        self.cookies.as_deref().unwrap_or_default()
    }

    /// Returns the headers in which a request says who sends it, in the order of their names. `key` is the header of
    /// the key: it may be written otherwise in a retry, and the record's id has it already.
    pub(crate) fn names<'a>(&self, parts: &'a Parts, key: &HeaderName) -> Vec<&'a HeaderName> {
        // A payment says nothing of who pays, and is new with each try.
        let pays = |name: &HeaderName| {
            *name == AUTHORIZATION && lines(&parts.headers, name).map(HeaderValue::as_bytes).all(is_payment)
        };
        let counts =
            |name: &&HeaderName| *name != key && (is_credential(name) || self.headers.contains(name)) && !pays(name);
        let mut names: Vec<_> = parts.headers.keys().filter(counts).collect();
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names
    }

    /// Adds to a fingerprint what the request says of who asks, in the headers of [`names`](Self::names).
    pub(crate) fn add_to(&self, builder: &mut FingerprintBuilder, parts: &Parts, names: &[&HeaderName]) {
        builder.add_credentials();
        self.add_rules(builder);
        self.for_each(parts, names, |name, value| builder.add_credential(name, value));
    }

    /// Passes on what the request says of who asks: names, and values without what makes no difference.
    pub(crate) fn for_each(&self, parts: &Parts, names: &[&HeaderName], mut take: impl FnMut(&str, &[u8])) {
        let mut has_any = false;
        for name in names {
            if **name == COOKIE {
                // A cookie is taken whole, with its name.
                for (_, cookie) in self.cookies(parts) {
                    take("cookie", cookie);
                    has_any = true;
                }
                continue;
            }
            for value in parts.headers.get_all(*name) {
                take_value(name, value.as_bytes(), &mut take);
                has_any = true;
            }
        }
        if !has_any {
            // Only a signature can say who asks now.
            lines(&parts.headers, SIGNATURE).for_each(|value| take("signature", value.as_bytes()));
        }
    }

    /// Returns a scope of what the request says of who asks; `None` if it says nothing, but for a signature, which is
    /// new with each attempt.
    pub(crate) fn scope(&self, parts: &Parts, key: &HeaderName) -> Option<Scope> {
        let mut scope = None;
        let names = self.names(parts, key);
        if names.is_empty() {
            return None;
        }
        self.for_each(parts, &names, |name, value| {
            // A part is not empty, and a value may be.
            let part = [name.as_bytes(), b":", value].concat();
            scope = match scope.take() {
                None => Scope::new(part).ok(),
                Some(scope) => Scope::and(scope, part).ok(),
            };
        });
        scope
    }

    /// Adds the options, unless they are the default ones. No header has a name with a blank.
    fn add_rules(&self, builder: &mut FingerprintBuilder) {
        for name in &self.headers {
            builder.add_credential("a header that counts", name.as_str().as_bytes());
        }
        let Some(cookies) = &self.cookies else { return };
        builder.add_credential("only some cookies count", b"");
        for name in cookies {
            builder.add_credential("a cookie that counts", name.as_bytes());
        }
    }

    /// Returns the cookies that count, with their names, in the order of their names. Cookies with equal names keep
    /// their order, because programs disagree which of them they read.
    fn cookies<'a>(&self, parts: &'a Parts) -> Vec<(&'a [u8], &'a [u8])> {
        let mut counted = Vec::new();
        // HTTP/2 may split the field into several (RFC 9113, section 8.2.3).
        let lines = lines(&parts.headers, COOKIE).map(HeaderValue::as_bytes);
        // Some programs read on to the closing quote, beyond a semicolon. What comes after an open one always counts,
        // and so does what comes after a backslash, with which some escape a quote.
        let (mut is_quoted, mut is_escaped) = (false, false);
        for cookie in lines.flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii) {
            let was_quoted = is_quoted || is_escaped;
            is_escaped |= cookie.contains(&b'\\');
            is_quoted ^= cookie.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
            // A cookie without `=` has no name (RFC 6265, section 5.4).
            let name = cookie.iter().position(|byte| *byte == b'=').map_or(&b""[..], |end| &cookie[..end]);
            let name = name.trim_ascii_end();
            // No value has one of these (RFC 6265, section 4.1.1), but some programs take the next cookie to begin
            // there, and some gateways join fields by a comma.
            let may_be_two = cookie.iter().any(|byte| matches!(byte, b',' | b' ' | b'\t' | b'\\'));
            if !cookie.is_empty() && (was_quoted || may_be_two || self.is_counted(name)) {
                counted.push((name, cookie));
            }
        }
        counted.sort_by_key(|(name, _)| *name);
        counted
    }

    /// Returns whether a cookie with this name counts. One whose name is no UTF-8 is not on the list of ignored ones.
    fn is_counted(&self, cookie: &[u8]) -> bool {
        match &self.cookies {
            Some(counted) => counted.iter().any(|name| name.as_bytes() == cookie),
            None => !std::str::from_utf8(cookie).is_ok_and(|name| is_on(IGNORED_COOKIES, name)),
        }
    }
}

/// Returns whether a header says who asks, whatever the options.
fn is_credential(name: &HeaderName) -> bool {
    let name = name.as_str();
    !USUAL.contains(&name) && is_listed(name)
}

/// Returns whether a header has another purpose than a key: as a key, it would be the same in different operations. Ids
/// of requests may be keys, and so may `x-key`, which says who asks elsewhere.
pub(crate) fn is_usual(name: &HeaderName) -> bool {
    const OTHERS: &[&str] =
        &["authorization", "cookie", "expect", "idempotency-probe", "proxy-authorization", "x-api-key"];
    name != "x-request-id" && [&USUAL[..], OTHERS].iter().any(|list| list.contains(&name.as_str()))
}

/// Returns whether the lists say that this header says who asks.
fn is_listed(name: &str) -> bool {
    (is_on(CREDENTIAL_HEADERS, name) || (may_end_an_entry(name) && has_ending(CREDENTIAL_HEADERS, name)))
        && !is_on(EXEMPT_HEADERS, name)
        && !has_ending(EXEMPT_HEADERS, name)
}

/// Headers that most requests have and that are not on the lists, which need not be searched for them.
const USUAL: [&str; 21] = [
    "host", "content-type", "content-length", "user-agent", "accept", "accept-encoding", "accept-language",
    "cache-control", "connection", "origin", "priority", "referer", "te", "traceparent", "tracestate",
    "transfer-encoding", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "x-request-id",
];

/// The last words of the entries of [`CREDENTIAL_HEADERS`] that begin with `*`: only for names that end so is it worth
/// looking. Most names of most requests don't. A new entry needs its last word here.
const LAST_WORDS: [&str; 22] = [
    "apikey", "assertion", "auth", "authorization", "cert", "clientcert", "credential", "email", "id", "info", "jwt",
    "key", "name", "password", "principal", "secret", "session", "token", "user", "userid", "userinfo", "username",
];

/// Returns whether a name may end as one of those entries.
fn may_end_an_entry(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, last)| LAST_WORDS.contains(&last))
}

/// Returns whether a name ends as an entry that begins with `*`. Such entries come first in a list.
fn has_ending(list: &[&str], name: &str) -> bool {
    list.iter().map_while(|entry| entry.strip_prefix('*')).any(|ending| name.ends_with(ending))
}

/// Returns whether a name is on a sorted list, or begins as an entry that ends with `*`. No entry begins as another
/// one with `*`, so only the last entry up to the name can be the one.
fn is_on(list: &[&str], name: &str) -> bool {
    let after = list.partition_point(|entry| stem(entry) <= name);
    let Some(entry) = after.checked_sub(1).and_then(|last| list.get(last)) else { return false };
    if entry.ends_with('*') { name.starts_with(stem(entry)) } else { *entry == name }
}

/// Returns the beginning of an entry, before the `*` at its end.
fn stem(entry: &str) -> &str {
    entry.strip_suffix('*').unwrap_or(entry)
}

/// Passes a value on. Where it begins with the name of an authentication scheme, that is compared without case, and the
/// blanks after it make no difference (RFC 9110, sections 11.1 and 11.4).
fn take_value(name: &HeaderName, value: &[u8], mut take: impl FnMut(&str, &[u8])) {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let scheme = value.iter().position(is_blank).filter(|_| name.as_str().ends_with("authorization"));
    match scheme.map(|end| (&value[..end], value[end..].trim_ascii())) {
        // Without anything after it, it is no scheme but the credentials themselves.
        Some((scheme, rest)) if !rest.is_empty() => {
            take("a scheme", &scheme.to_ascii_lowercase());
            take(name.as_str(), rest);
        }
        // Another header, or a value without a scheme.
        _ => take(name.as_str(), value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_usual_header_is_on_the_lists() {
        for name in USUAL {
            assert!(!is_listed(name), "{name}");
        }
        assert!(is_listed("authorization"));
    }
}
