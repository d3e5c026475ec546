//! The form in which an operator enters an answer.

use maud::{Markup, html};
use tower_idempotency::internals::written::{BodyEncoding, WrittenAnswer};
use tower_idempotency::operations::{Answer, Form};

use crate::fields::Fields;
use crate::text::{sentence, shown};

/// What was entered.
#[derive(Debug, Clone)]
pub(super) struct Entered {
    pub(super) status: String,
    pub(super) content_type: String,
    pub(super) body: String,
    pub(super) is_base64: bool,
}

impl Default for Entered {
    fn default() -> Self {
        let (status, content_type) = ("200".to_owned(), "application/json".to_owned());
        Self { status, content_type, body: String::new(), is_base64: false }
    }
}

impl Entered {
    /// Returns what a form has; `None` if it is not the one for an answer.
    pub(super) fn read(fields: &Fields) -> Option<Self> {
        let text = |name| fields.get(name).unwrap_or_default().to_owned();
        // A browser sends each end of a line as two characters.
        let body = fields.exact("body")?.replace("\r\n", "\n");
        let is_base64 = fields.get("encoding") == Some("base64");
        Some(Self { status: text("status"), content_type: text("content_type"), body, is_base64 })
    }

    /// Returns the answer; the error says what is wrong with it.
    pub(super) fn answer(&self, form: Form) -> Result<Answer, String> {
        let status = match self.status.as_str() {
            _ if form == Form::Bytes => None,
            "" if form == Form::Any => None,
            status => Some(status.parse().map_err(|_| "The status must be a number, such as 200.".to_owned())?),
        };
        let content_type = Some(&self.content_type).filter(|value| !value.is_empty() && status.is_some());
        let headers = content_type.map(|value| ("content-type".to_owned(), value.clone())).into_iter().collect();
        let encoding = if self.is_base64 { BodyEncoding::Base64 } else { BodyEncoding::Utf8 };
        let answer = WrittenAnswer { status, headers, body: self.body.clone(), encoding }.answer();
        answer.map_err(|why| sentence(&why))
    }
}

/// Returns the form for an answer to the retries of these operations.
pub(super) fn form(
    form: Form,
    rows: &[String],
    matching: Option<&str>,
    entered: &Entered,
    complaint: Option<&str>,
) -> Markup {
    html! {
        @if let Some(complaint) = complaint { p.complaint role="alert" id="complaint" { (shown(complaint)) } }
        form.answer method="post" action="?settle" {
            input type="hidden" name="do" value="review";
            input type="hidden" name="action" value="answer";
            @for row in rows { input type="hidden" name="row" value=(row); }
            @if let Some(matching) = matching { input type="hidden" name="matching" value=(matching); }
            @if form != Form::Bytes {
                p { label for="answer-status" { "Status" }
                    input id="answer-status" name="status" value=(entered.status) inputmode="numeric" size="5"
                        required[form == Form::Http] autocomplete="off"; }
                @if form == Form::Any { p.hint { "Leave it empty for the outcome of a message consumer, which is JSON." } }
                p { label for="content-type" { "Content type" }
                    input id="content-type" name="content_type" value=(entered.content_type) size="24" autocomplete="off"; }
            }
            p { label for="body" { @if form == Form::Bytes { "Outcome, in JSON" } @else { "Body" } }
                textarea id="body" name="body" rows="6" spellcheck="false" autocomplete="off" { "\n" (entered.body) } }
            p { label for="encoding" { "The body is entered as" }
                select id="encoding" name="encoding" {
                    option value="text" selected[!entered.is_base64] { "text" }
                    option value="base64" selected[entered.is_base64] { "Base64" }
                } }
            p { button { "Review this answer…" } }
        }
    }
}
