//! The first view: the numbers, the list, and the form that finds.

use axum::response::Response;
use futures_util::future::join4;
use http::StatusCode;
use maud::{Markup, html};
use tower_idempotency::operations::StateKind;
use tower_idempotency::store::Store;

use super::frame::{framed, with_status};
use super::{disputed, find, list, live};
use crate::fields::Fields;
use crate::guard::Caller;
use crate::problem::with_causes;
use crate::selection::Selection;
use crate::site::Site;
use crate::text::shown;
use crate::timeout::Unread;

pub(super) async fn page<St: Store>(site: &Site<St>, caller: &Caller, fields: &Fields) -> Response {
    let selected = Selection::read(fields).map(|selection| match fields.has("state") {
        true => selection,
        // What an operator looks for first.
        false => Selection { filter: selection.filter.in_state(StateKind::Interrupted), ..selection },
    });
    let mut status = if selected.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let listed = async {
        match &selected {
            Ok(selection) => list::section(site, caller, selection).await,
            Err(complaint) => Ok(list::complaint(fields, complaint)),
        }
    };
    #[cfg(feature = "outbox")]
    let outboxes = super::outbox::sections(site, caller, fields);
    #[cfg(not(feature = "outbox"))]
    let outboxes = std::future::ready(html! {});
    let (overview, listed, disputed, outboxes) =
        join4(site.overview(), listed, disputed::section(site, caller, fields.get("disputed_after")), outboxes).await;
    if overview.is_err() || listed.is_err() || disputed.is_err() {
        status = StatusCode::SERVICE_UNAVAILABLE;
    }
    let main = html! {
        nav aria-label="Sections" {
            ul {
                @for (id, name) in [("now", "Now"), ("list", "List"), ("find", "Find"), ("disputed", "Disputed"), ("live", "Live")] {
                    li { a href={ "#" (id) } { (name) } }
                }
                @if !outboxes.0.is_empty() { li { a href="#outbox-0" { "Outbox" } } }
            }
        }
        (live::now(site, overview.map_err(|error| failed(&error))))
        (listed.unwrap_or_else(|error| failed(&error)))
        (find::form(None))
        (disputed.unwrap_or_else(|error| failed(&error)))
        (outboxes)
        (live::live(site))
    };
    with_status(status, framed(caller, "Operations", main))
}

/// Says that the store has not answered.
fn failed(error: &Unread) -> Markup {
    html! { p.complaint role="alert" { "The store does not answer this: " (shown(&with_causes(error))) } }
}
