//! Outcomes that came too late.

use maud::{Markup, html};
use tower_idempotency::store::Store;

use crate::fields::link;
use crate::patience::{Unread, in_time};
use crate::site::Site;
use crate::text::{date, now};

/// The most that are shown.
const SHOWN: usize = 100;

pub(super) async fn section<St: Store>(site: &Site<St>) -> Result<Markup, Unread> {
    let disputed = in_time(site.operations.disputed(SHOWN)).await?;
    let now = now();
    Ok(html! {
        section aria-labelledby="disputed" {
            h2 id="disputed" { "Disputed" }
            p { "Outcomes that came after their operation had been taken over or settled. They count for nothing, and each may \
                 be a second effect: compare it with your ledger." }
            @if disputed.is_empty() {
                p { "There are none." }
            } @else {
                table.operations {
                    caption { (disputed.len()) @if disputed.len() == SHOWN { " or more" } " outcomes" }
                    thead { tr { th scope="col" { "Operation" } th scope="col" { "Came" } th scope="col" { "Kept until" } } }
                    tbody { @for outcome in &disputed {
                        @let id = outcome.id.to_string();
                        tr {
                            td data-label="Operation" { a href=(link([("id", id.as_str())])) { code { (outcome.id.short()) } } }
                            td data-label="Came" { span title=(date(outcome.since)) { (crate::text::age(outcome.since, now)) " ago" } }
                            td data-label="Kept until" { (date(outcome.expires)) }
                        }
                    } }
                }
            }
        }
    })
}
