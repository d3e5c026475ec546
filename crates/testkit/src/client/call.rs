//! A request.

use http::request::Builder;
use http::{Method, Request};

/// The host that requests name, whatever the server's port: a retry must repeat the host.
pub(super) const HOST: &str = "pay.example";

/// A request, to be sent as often as needed.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Call {
    pub fn get(path: &str) -> Self {
        Self { method: Method::GET, path: path.to_owned(), headers: Vec::new(), body: String::new() }
    }

    pub fn post(path: &str, body: &str) -> Self {
        let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        Self { method: Method::POST, path: path.to_owned(), headers, body: body.to_owned() }
    }

    /// A charge of 10 euros.
    pub fn charge(key: &str, source: &str) -> Self {
        Self::post("/v1/charges", &format!("amount=1000&currency=eur&source={source}")).header("idempotency-key", key)
    }

    /// The same, described by its key: that is how it is found in a ledger.
    pub fn charge_of(key: &str, source: &str) -> Self {
        let mut call = Self::charge(key, source);
        call.body.push_str(&format!("&description={key}"));
        call
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(held, _)| *held != name);
        self.headers.push((name, value.to_owned()));
        self
    }
    /// Its head, with this in the place of the path.
    pub(super) fn request(&self, uri: &str) -> Builder {
        let request = Request::builder().method(self.method.clone()).uri(uri);
        self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
    }
}
