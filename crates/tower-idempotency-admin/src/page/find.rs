//! Finds an operation by what support staff know. Key and owner are in a body, and no answer repeats them.

use maud::{Markup, html};
use tower_idempotency::Key;
use tower_idempotency::store::Store;

use super::frame::framed;
use crate::fields::{Fields, link};
use crate::guard::Caller;
use crate::problem::Problem;
use crate::site::Site;
use crate::text::shown;
use crate::timeout::in_time;

pub(super) fn form(message: Option<&str>) -> Markup {
    html! {
        section aria-labelledby="find" {
            h2 id="find" { "Find" }
            @if let Some(message) = message { p.complaint role="alert" { (shown(message)) } }
            form.find method="post" action="?find" {
                input type="hidden" name="do" value="find";
                p { label for="key" { "Idempotency key, as the client sent it" }
                    input id="key" name="key" required maxlength="255" autocomplete="off" autocapitalize="off" spellcheck="false"; }
                p { label for="owner" { "Owner of the key, as the application names it; several parts on a line each" }
                    textarea id="owner" name="owner" rows="2" autocomplete="off" autocapitalize="off" spellcheck="false"
                        aria-describedby="owner-hint" {} }
                p.hint id="owner-hint" { "Leave it empty if the application sets no scope. Neither becomes a part of a URL or a log." }
                p { button { "Find" } }
            }
        }
    }
}

/// Returns the link to what was found, or the page that says that nothing was.
pub(super) async fn find<St: Store>(
    site: &Site<St>,
    caller: &Caller,
    fields: &Fields,
) -> Result<Result<String, Markup>, Problem> {
    let again = |message: &str| Ok(Err(framed(caller, "Find an operation", form(Some(message)))));
    let Ok(key) = Key::new(unquoted(fields.get("key").unwrap_or_default())) else {
        return again("A key has 1 to 255 characters, all of them visible ASCII.");
    };
    let owner: Vec<_> =
        fields.get("owner").unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let scope = match (site.scope_from)(&owner) {
        Ok(scope) => scope,
        Err(error) => return again(&format!("This is no owner: {error}")),
    };
    match in_time(site.operations.find(scope.as_ref(), &key)).await? {
        Some(found) => Ok(Ok(link([("id", found.id.to_string().as_str())]))),
        None => again(
            "There is no operation with this key of this owner. It was never sent, its record has expired, or its key is \
             free. Or the owner is another one.",
        ),
    }
}

/// Returns the key of a header that is a structured field's String (RFC 9651), as the layer reads it.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}
