//! The page for clients of this API.

use axum::response::{Html, IntoResponse};
use http::header::CONTENT_SECURITY_POLICY;
use pulldown_cmark::{Options, Parser, html};

const PAGE: &str = include_str!("../../../docs/clients.md");

/// `GET /docs/clients`
pub(crate) async fn get() -> impl IntoResponse {
    let head =
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>For clients of this API</title>\n";
    let mut page = head.to_owned();
    html::push_html(&mut page, Parser::new_ext(PAGE, Options::ENABLE_TABLES));
    // The page loads nothing.
    ([(CONTENT_SECURITY_POLICY, "default-src 'none'")], Html(page))
}
