//! A request.

use http::request::Builder;
use http::{Method, Request};

/// The host that requests name, whatever the server's port: a retry must repeat the host.
pub(super) const HOST: &str = "pay.example";
const OPERATORS_HOST: &str = "localhost";

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

    /// An operator's call, which the example server takes from this machine alone.
    pub fn operator(path: &str) -> Self {
        Self::get(path).header("host", OPERATORS_HOST)
    }

    /// An operator's change, or their question with a secret in it.
    pub fn operator_post(path: &str, json: &serde_json::Value) -> Self {
        let call = Self { method: Method::POST, body: json.to_string(), ..Self::operator(path) };
        call.header("sec-fetch-site", "same-origin")
    }

    /// The host that it names.
    pub(super) fn host(&self) -> &str {
        self.headers.iter().find(|(name, _)| *name == "host").map_or(HOST, |(_, host)| host)
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(held, _)| *held != name);
        self.headers.push((name, value.to_owned()));
        self
    }
    /// Its head, with this in the place of the path.
    pub(super) fn request(&self, uri: &str) -> Builder {
        let request = Request::builder().method(self.method.clone()).uri(uri);
        let headers = self.headers.iter().filter(|(name, _)| *name != "host");
        headers.fold(request, |request, (name, value)| request.header(*name, value))
    }
}
