//! Where the server is.

use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

/// The server of a URL, and the path that is examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_tls: bool,
}

/// Why a text is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no URL of a server: write it as http://127.0.0.1:8080/charges")]
pub struct AddressError {
    text: String,
}

impl Address {
    /// Reads a URL. Returns the server, and path and query.
    pub(crate) fn of(url: &str) -> Result<(Self, String), AddressError> {
        // What comes before the host may be a password.
        let text = url.rsplit_once('@').map_or(url, |(_, host)| host);
        let error = || AddressError { text: text.to_owned() };
        let uri: Uri = url.parse().map_err(|_| error())?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(error()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(error)?;
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok((Self { host: authority.host().to_owned(), port, is_tls }, target))
    }

    /// Whether the server is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        let name = self.host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        is_loopback || name == "localhost"
    }

    /// The value of `Host`.
    pub(crate) fn authority(&self) -> String {
        let is_default = self.port == if self.is_tls { 443 } else { 80 };
        if is_default { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The beginning of the URLs of this server.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests;
