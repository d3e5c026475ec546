//! What is sent, and what comes back.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use tower_idempotency_meaning::{self as meaning, BodyJudge, Says};

/// A request, as it is sent. `Host` and `Content-Length` are added.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    /// In this order, and as often as they are there.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// The `id` under which a call of JSON-RPC is answered, if it is one.
    pub(crate) id: Option<serde_json::Value>,
}

impl Message {
    /// Adds a header line.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Replaces all lines of a header by one.
    pub(crate) fn set(self, name: &str, value: impl Into<String>) -> Self {
        self.without(name).with(name, value)
    }

    /// Removes all lines of a header.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(held, _)| !held.eq_ignore_ascii_case(name));
        self
    }

    /// Sends a call under this `id`, and not under one that no other call has.
    pub(crate) fn under(self, id: impl Into<serde_json::Value>) -> Self {
        Self { id: Some(id.into()), ..self }
    }

    pub(crate) fn with_body(self, body: impl Into<String>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The command that sends it, for a shell. Names of headers are small letters on each connection.
    pub(crate) fn curl(&self, origin: &str, key_header: &str) -> String {
        let mut line = format!("curl -i -X {} {}", self.method, quoted(&format!("{origin}{}", self.target)));
        for (name, value) in &self.headers {
            let is_shown = SHOWN.iter().any(|shown| name.eq_ignore_ascii_case(shown)) || name == key_header;
            let name = name.to_ascii_lowercase();
            let header = match value.as_str() {
                // curl leaves out a header that ends with a colon.
                "" => format!("{name};"),
                _ if !is_shown => format!("{name}: ***"),
                value => format!("{name}: {value}"),
            };
            line.push_str(&format!(" -H {}", quoted(&header)));
        }
        let body = &self.body;
        let text = body.trim_matches(' ');
        let blanks = body.len() - text.len();
        let side = if body.starts_with("  ") { "before" } else { "after" };
        match blanks {
            _ if body.is_empty() => {}
            0..=8 => line.push_str(&format!(" --data-raw {}", quoted(body))),
            _ => line.push_str(&format!(" --data-raw {} # and {blanks} blanks {side} it", quoted(text))),
        }
        line
    }

    /// The bytes of the head in HTTP/1.1, with this length of the body.
    pub(crate) fn head(&self, host: &str, length: usize) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{}: {value}\r\n", name.to_ascii_lowercase()));
        }
        head.push_str(&format!("content-length: {length}\r\n\r\n"));
        head
    }
}

/// What is no secret, besides the key, which is the check's own. All other headers of a plan may be one.
const SHOWN: [&str; 8] = [
    "accept", "accept-language", "content-type", "mcp-method", "mcp-name", "mcp-protocol-version", "prefer",
    "user-agent",
];

/// Quotes a text for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// An answer, read to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) version: Version,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    /// What the body says, by the judge of the plan, if it says something. Otherwise the status counts.
    pub(crate) says: Option<Says>,
    /// It is no answer to its call of JSON-RPC, by its `id`: the client waits on.
    pub(crate) is_astray: bool,
}

impl Answer {
    pub(crate) fn judged(mut self, judge: &BodyJudge) -> Self {
        let answer = meaning::Answer::new(self.status, &self.headers, &self.body);
        self.says = judge.judge(&answer.with_trailers(self.trailers.as_ref()));
        self
    }

    pub(crate) fn is_success(&self) -> bool {
        self.status.is_success() && self.says.is_none_or(|says| says == Says::Done)
    }

    /// Whether the server refuses the request.
    pub(crate) fn is_client_error(&self) -> bool {
        match self.says {
            None | Some(Says::Done) => self.status.is_client_error(),
            Some(says) => !matches!(says, Says::Failed | Says::Unknown),
        }
    }

    /// Whether the server has failed.
    pub(crate) fn is_server_error(&self) -> bool {
        self.says.map_or(self.status.is_server_error(), |says| matches!(says, Says::Failed | Says::Unknown))
    }

    /// Whether the request came too early.
    pub(crate) fn is_limited(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS || matches!(self.says, Some(Says::TryLater(_)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body, without the mark of a replay that some servers put into it.
    pub(crate) fn content(&self) -> Vec<u8> {
        let Some(mut json) = self.json() else { return self.body.to_vec() };
        if let Some(members) = json.as_object_mut().filter(|members| members.get("replayed") == Some(&true.into())) {
            members.remove("replayed");
        }
        json.to_string().into()
    }

    /// Whether the body is that of another answer, byte by byte; one that is marked as a replay is compared as JSON.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_marked = |answer: &Self| answer.json().is_some_and(|body| body["replayed"] == true);
        self.body == other.body || (is_marked(self) || is_marked(other)) && self.content() == other.content()
    }

    /// Whether the body means the same as that of another answer: JSON may be written in another way.
    pub(crate) fn says_same(&self, other: &Self) -> bool {
        self.content() == other.content()
    }

    /// Whether a client takes it for "wait, and send again".
    pub(crate) fn says_wait(&self) -> bool {
        // A server with this layer says so by itself.
        let says = self.header("idempotency-effect").map(|effect| effect.split(';').skip(1).map(str::trim));
        if let Some(retry) = says.and_then(|mut says| says.find(|parameter| parameter.starts_with("retry"))) {
            return retry != "retry=?0";
        }
        // Some servers say themselves that waiting is of no use.
        let json = self.json().unwrap_or_default();
        // An error of JSON-RPC may be behind a 200.
        let of_call = json.pointer("/error/data/retry_with_same_key");
        if of_call.is_some_and(|says| *says == true) {
            return true;
        }
        let is_final = self.header("stripe-should-retry") == Some("false")
            || of_call.or(json.get("retry_with_same_key")).is_some_and(|says| *says == false);
        (self.is_limited() || matches!(self.status.as_u16(), 409 | 423 | 425 | 503)) && !is_final
    }

    /// An answer without headers.
    #[cfg(test)]
    pub(crate) fn of(status: u16, body: &'static str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        Self { status, body: body.into(), ..Self::default() }
    }

    /// Status and the beginning of the body, for a report.
    pub(crate) fn summary(&self) -> String {
        format!("{} {}", self.status.as_u16(), shown(&String::from_utf8_lossy(&self.body)))
    }
}

/// Whether this is the answer to a call of JSON-RPC, and no request or notification of the server's own.
pub(crate) fn is_rpc_answer(message: &serde_json::Value) -> bool {
    message.get("result").is_some() || message.get("error").is_some()
}

/// The beginning of a text, for a report. A terminal obeys none of its characters.
pub(crate) fn shown(text: &str) -> String {
    let begin: String = text.chars().take(120).collect();
    let more = if begin.len() < text.len() { "…" } else { "" };
    let begin: String = begin.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    format!("{begin}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &'static str) -> Answer {
        Answer::of(200, body)
    }

    // Each status with each word about a retry. Seeded faults: a word is not looked at; a status is left out.
    #[test]
    fn an_answer_says_wait_by_its_status_unless_it_says_that_waiting_is_of_no_use() {
        let stripe = http::HeaderName::from_static("stripe-should-retry");
        let effect = http::HeaderName::from_static("idempotency-effect");
        for status in [200, 400, 409, 422, 423, 425, 429, 500, 503] {
            let by_status = [409, 423, 425, 429, 503].contains(&status);
            for (header, body, says) in [
                (None, "{}", by_status),
                (None, r#"{"retry_with_same_key": false}"#, false),
                (None, r#"{"retry_with_same_key": true}"#, by_status),
                (Some((&stripe, "false")), "{}", false),
                (Some((&stripe, "false")), r#"{"retry_with_same_key": true}"#, false),
                (Some((&stripe, "true")), "no JSON", by_status),
                (Some((&effect, "pending;retry")), r#"{"retry_with_same_key": false}"#, true),
                (Some((&effect, "unknown;retry=?0")), "{}", false),
                (Some((&effect, "none")), "{}", by_status),
                (None, r#"{"error": {"data": {"retry_with_same_key": true}}}"#, true),
                (None, r#"{"error": {"data": {"retry_with_same_key": false}}}"#, false),
            ] {
                let mut answer = answer(body);
                answer.status = StatusCode::from_u16(status).unwrap();
                if let Some((name, value)) = header {
                    answer.headers.insert(name, value.parse().unwrap());
                }
                assert_eq!(answer.says_wait(), says, "{status} {header:?} {body}");
            }
        }
    }

    // A throttled request is waited for, and is no failure.
    #[test]
    fn each_judged_body_is_a_success_a_refusal_or_a_failure_as_the_page_of_meanings_says() {
        for said in testkit::meanings::bodies() {
            let mut found = Answer { body: said.body.clone().into(), ..answer("") };
            found.headers.insert("content-type", said.content_type.parse().unwrap());
            found.trailers = said.grpc_status.as_ref().map(|status| {
                HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status.parse().unwrap())])
            });
            let found = found.judged(&said.judge.parse().unwrap());
            let known = said.row.get("a client knows");
            let is = [found.is_success(), found.is_client_error(), found.is_server_error()];
            assert_eq!(is, ["done", "refused", "unknown"].map(|each| each == known), "{said:?}");
            let is_again = said.row.get("tries again") == "yes";
            assert_eq!([found.says_wait(), found.is_limited()], [is_again; 2], "{said:?}");
        }
    }

    #[test]
    fn a_command_shows_no_secret_and_sends_what_was_sent() {
        let headers = [("X-Auth-Token", "s3cr3t"), ("Key", ""), ("content-type", "text/plain")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let message = Message { method: Method::POST, target: "/".to_owned(), headers, body: "@it's".into(), id: None };
        let line = message.curl("http://a", "Key");
        let expected = r"curl -i -X POST 'http://a/' -H 'x-auth-token: ***' -H 'key;' -H 'content-type: text/plain' --data-raw '@it'\''s'";
        assert_eq!(line, expected);
        // Blanks in a great number are said, and not shown.
        for (body, sent) in [
            (format!("a{}", " ".repeat(8)), " --data-raw 'a        '"),
            (format!("a{}", " ".repeat(9)), " --data-raw 'a' # and 9 blanks after it"),
            (format!(" a{}", " ".repeat(9)), " --data-raw 'a' # and 10 blanks after it"),
            (format!("{}a", " ".repeat(9)), " --data-raw 'a' # and 9 blanks before it"),
        ] {
            let message = Message { method: Method::GET, target: "/".to_owned(), headers: Vec::new(), body, id: None };
            assert_eq!(message.curl("http://a", "Key"), format!("curl -i -X GET 'http://a/'{sent}"));
        }
    }

    #[test]
    fn each_refusal_of_the_layer_says_wait_where_the_page_of_meanings_says_retry() {
        for row in testkit::meanings::rejections() {
            let mut refused = answer("");
            refused.status = StatusCode::from_u16(row.statuses()[0]).unwrap();
            refused.headers.insert("idempotency-effect", row.get("says").parse().unwrap());
            assert_eq!(refused.says_wait(), row.get("says").ends_with(";retry"), "{row:?}");
        }
        for (status, row) in testkit::meanings::statuses() {
            let mut other = answer("");
            other.status = StatusCode::from_u16(status).unwrap();
            // What is over is not waited for, such as a gateway's 502.
            assert!(!other.says_wait() || row.get("outbox") == "another try" || status == 423, "{status}");
        }
    }

    #[test]
    fn a_mark_in_the_body_is_no_difference_and_a_terminal_obeys_nothing() {
        assert!(answer(r#"{"id":1}"#).is_same(&answer(r#"{"id":1,"replayed":true}"#)));
        for other in [r#"{"id":2,"replayed":true}"#, r#"{"id":1} "#, r#"{"id":1,"replayed":false}"#] {
            assert!(!answer(r#"{"id":1}"#).is_same(&answer(other)), "{other}");
        }
        assert_eq!(answer("\x1b]0;a\x07\nb").summary(), "200  ]0;a  b");
    }
}
