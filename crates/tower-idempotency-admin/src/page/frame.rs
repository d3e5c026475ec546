//! What is around everything: the head, and who is signed in.

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use maud::{DOCTYPE, Markup, html};

use crate::guard::Caller;
use crate::nonce::Nonce;
use crate::problem::Problem;
use crate::text::shown;

/// Returns the whole page with this title and this content.
pub(super) fn framed(caller: &Caller, title: &str, main: Markup) -> Markup {
    let nonce = caller.nonce.as_ref().map(Nonce::as_str);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) " · idempotency" }
                link rel="icon" type="image/svg+xml" href="?file=icon.svg";
                link rel="stylesheet" href="?file=style.css" nonce=[nonce];
                script src="?file=script.js" defer nonce=[nonce] {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    p { a href="?" { "Idempotency" } }
                    p { "Signed in: " bdi { (shown(&caller.actor.name)) } }
                }
                main id="main" tabindex="-1" {
                    h1 { (title) }
                    (main)
                }
            }
        }
    }
}

/// Returns the answer that is this page.
pub(super) fn html(page: Markup) -> Response {
    with_status(StatusCode::OK, page)
}

pub(super) fn with_status(status: StatusCode, page: Markup) -> Response {
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// Returns the page that says what is wrong.
pub(super) fn error(caller: &Caller, problem: Problem) -> Response {
    let Problem { status, detail } = problem;
    let title = status.canonical_reason().unwrap_or("Error");
    let main = html! {
        p.complaint role="alert" { (shown(&detail)) }
        p { a href="?" { "All operations" } }
    };
    with_status(status, framed(caller, title, main))
}
