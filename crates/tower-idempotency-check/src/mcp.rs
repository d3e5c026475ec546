//! Calls of a tool over MCP: the session, the request of a call, and its answer. A check sends the tool's arguments as
//! the body of a request with a key in its header; the probe makes a call of it here.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tower_idempotency_meaning::Says;

use crate::http::message::{Answer, Message, is_rpc_answer};

/// The revision that this client offers, and the one that has no `initialize`.
const OFFERED: &str = "2025-06-18";
const STATELESS: &str = "2026-07-28";
const VERSION: &str = "mcp-protocol-version";
const JSON: &str = "application/json";
/// Where the key is, unless the plan says another place.
pub(crate) const KEY_PLACE: &str = "/params/_meta/idempotencyKey";

/// A tool, and where its calls have their key.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// As a JSON Pointer into the call; `None`: in the head.
    pub(crate) key_place: Option<String>,
}

impl Tool {
    /// The call with these arguments under this `id`, or `None` if the key can't be put into it.
    pub(crate) fn call(&self, arguments: Value, key: Option<&str>, id: &Value) -> Option<Value> {
        let params = json!({"name": self.name, "arguments": arguments, "_meta": {"progressToken": id}});
        let mut call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        if let Some((place, key)) = self.key_place.as_ref().zip(key) {
            let mut at = &mut call;
            for name in place.split('/').skip(1) {
                // Objects on the way that are not there are made.
                let is_open = at.is_object() || at.is_null();
                at = is_open.then(|| &mut at[name.replace("~1", "/").replace("~0", "~")])?;
            }
            *at = key.into();
        }
        Some(call)
    }
}

/// What a client and a server have agreed on.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The revision of the protocol.
    revision: String,
    /// As the server has named the session, if it has sessions.
    pub(crate) id: Option<String>,
}

impl Session {
    /// The request that asks for a session, or the session itself if the plan's headers name the revision without any.
    pub(crate) fn asked(endpoint: &Message) -> Result<Message, Self> {
        let is_stateless = |(name, value): &(String, String)| name.eq_ignore_ascii_case(VERSION) && value == STATELESS;
        if endpoint.headers.iter().any(is_stateless) {
            return Err(Self { revision: STATELESS.to_owned(), id: None });
        }
        let client = json!({"name": "idem check", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"protocolVersion": OFFERED, "capabilities": {}, "clientInfo": client});
        let asked = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        Ok(message(endpoint, &asked, Some(0.into())))
    }

    /// Reads the answer to [`asked`](Self::asked). A server of the later revision has no such method. Returns `None` if
    /// the answer is neither.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let result = answer.json().unwrap_or_default();
        if let Some(revision) = result["result"]["protocolVersion"].as_str().filter(|_| answer.is_success()) {
            let id = answer.header("mcp-session-id").map(str::to_owned);
            return Some(Self { revision: revision.to_owned(), id });
        }
        let is_unknown = matches!(answer.status.as_u16(), 400 | 404 | 405) || result.get("error").is_some();
        is_unknown.then(|| Self { revision: STATELESS.to_owned(), id: None })
    }

    /// The notification that ends the opening of the session, if the revision has one.
    pub(crate) fn opened(&self, endpoint: &Message) -> Option<Message> {
        let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        (self.revision != STATELESS).then(|| self.named(message(endpoint, &notification, None)))
    }

    /// The call of the tool with the request's arguments and the key in its header, under this `id`.
    pub(crate) fn call(&self, tool: &Tool, key_header: &str, request: &Message, id: Value) -> Message {
        let arguments = serde_json::from_str(&request.body).unwrap_or_else(|_| json!({}));
        let key = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(key_header));
        let key = key.map(|(_, key)| key.as_str());
        // The plan has tried it.
        let mut call = tool.call(arguments, key, &id).unwrap_or_default();
        let request = if tool.key_place.is_some() { request.clone().without(key_header) } else { request.clone() };
        if self.revision != STATELESS {
            return self.named(message(&request, &call, Some(id)));
        }
        for (name, value) in [("protocolVersion", STATELESS.into()), ("clientCapabilities", json!({}))] {
            call["params"]["_meta"][format!("io.modelcontextprotocol/{name}")] = value;
        }
        let call = message(&request, &call, Some(id));
        self.named(call).with("mcp-method", "tools/call").with("mcp-name", &tool.name)
    }

    /// Adds what each request of the session has in its head.
    fn named(&self, message: Message) -> Message {
        let message = message.set(VERSION, &self.revision);
        match &self.id {
            Some(id) => message.with("mcp-session-id", id),
            None => message,
        }
    }
}

/// A message of JSON-RPC to the endpoint, with the headers of its request.
fn message(endpoint: &Message, body: &Value, id: Option<Value>) -> Message {
    let message = Message { method: Method::POST, body: body.to_string(), id, ..endpoint.clone() };
    message.set("content-type", "application/json").set("accept", "application/json, text/event-stream")
}

/// Reads the answer to a call with this `id`: what is left of its body is the same for each retry.
pub(crate) fn read(mut answer: Answer, id: &Value) -> Answer {
    let is_json = answer.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with(JSON));
    let members = answer.json().filter(|message| is_json && is_rpc_answer(message));
    let Some(Value::Object(mut members)) = members else {
        // By another status, the call has failed. A client waits on for the answer to one that has succeeded.
        if answer.status.is_success() {
            (answer.is_astray, answer.says) = (true, Some(Says::Unknown));
        }
        return answer;
    };
    let answered = members.remove("id").unwrap_or_default();
    // A refusal of what the server has not read has null.
    answer.is_astray = answered != *id && (answer.status.is_success() || !answered.is_null());
    if members.contains_key("error") {
        answer.says = answer.says.or(Some(Says::Unknown));
    } else if members["result"]["isError"] == true {
        // To the protocol it is a result, and no success to the client.
        answer.says = Some(Says::Refused);
    }
    answer.body = Value::Object(members).to_string().into();
    answer
}

/// What a tool has said, as the body of an answer, for a count. A refusal stays as it is.
pub(crate) fn said(mut answer: Answer) -> Answer {
    let result = answer.json().map(|mut answer| answer["result"].take()).unwrap_or_default();
    let counts = |value: &Value| value.is_array() || value.is_number();
    let has_count = |value: &&Value| counts(value) || value.as_object().is_some_and(|all| all.values().any(counts));
    if let Some(structured) = result.get("structuredContent").filter(has_count) {
        answer.body = structured.to_string().into();
    } else if let Some(text) = result.pointer("/content/0/text").and_then(Value::as_str) {
        answer.body = Bytes::copy_from_slice(text.as_bytes());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each `id` with each form of an answer. Seeded fault: a null counts as the `id` under 200, too.
    #[test]
    fn an_answer_is_astray_if_it_has_another_id_than_its_call() {
        let error = r#""error":{"code":-32600,"message":"no"}}"#;
        for (status, body, is_astray) in [
            (200, r#"{"id":7,"result":{}}"#.to_owned(), false),
            (200, r#"{"id":8,"result":{}}"#.to_owned(), true),
            (200, r#"{"id":"7","result":{}}"#.to_owned(), true),
            (200, r#"{"result":{}}"#.to_owned(), true),
            (200, format!(r#"{{"id":7,{error}"#), false),
            (200, format!(r#"{{"id":null,{error}"#), true),
            (400, format!(r#"{{"id":null,{error}"#), false),
            (400, format!(r#"{{"id":8,{error}"#), true),
            (200, "<html>".to_owned(), true),
            (422, r#"{"title":"no"}"#.to_owned(), false),
            (503, String::new(), false),
        ] {
            let mut answer = answered(status, &body);
            assert_eq!(read(answer.clone(), &json!(7)).is_astray, is_astray, "{status} {body}");
            // No client reads another type.
            answer.headers.clear();
            assert_eq!(read(answer, &json!(7)).is_astray, status == 200, "{status} {body}");
        }
    }

    fn answered(status: u16, body: &str) -> Answer {
        let mut answer = Answer { body: body.to_owned().into(), ..Answer::of(status, "") };
        answer.headers.insert("content-type", http::HeaderValue::from_static("application/json; charset=utf-8"));
        answer
    }

    #[test]
    fn what_is_left_of_an_answer_is_the_same_under_each_id_and_an_error_of_the_tool_is_no_success() {
        let of = |body: &str, id: Value| read(answered(200, body), &id);
        let [one, other] =
            [of(r#"{"id":1,"result":{"a":1}}"#, json!(1)), of(r#"{"result":{"a":1},"id":"x"}"#, json!("x"))];
        assert!(one.is_same(&other) && one.is_success());
        let declined = of(r#"{"id":1,"result":{"isError":true}}"#, json!(1));
        assert!(!declined.is_success() && declined.is_client_error());
        // Without a judge that knows it, an error is no success either.
        let failed = of(r#"{"id":1,"error":{}}"#, json!(1));
        assert!(!failed.is_success() && failed.is_server_error());
    }

    #[test]
    fn a_call_has_its_key_where_the_plan_says_and_not_in_its_head() {
        let session = Session { revision: OFFERED.to_owned(), id: Some("s".to_owned()) };
        let headers = vec![("Authorization".to_owned(), "a".to_owned())];
        let (body, target) = (r#"{"amount":5}"#.to_owned(), "/mcp".to_owned());
        let request = Message { method: Method::POST, target, headers, body, id: None }.with("idempotency-key", "k");
        for place in [KEY_PLACE, "/params/idempotencyKey", "/params/arguments/a~1b", "/params/arguments/meta/key"] {
            let tool = Tool { name: "pay".to_owned(), key_place: Some(place.to_owned()) };
            let call = session.call(&tool, "Idempotency-Key", &request, json!("x"));
            let body: Value = serde_json::from_str(&call.body).unwrap();
            assert_eq!(body.pointer(place), Some(&json!("k")), "{place} {body}");
            assert_eq!((&body["id"], &body["params"]["arguments"]["amount"]), (&json!("x"), &json!(5)), "{place}");
            let names: Vec<_> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(
                names,
                ["Authorization", "content-type", "accept", "mcp-protocol-version", "mcp-session-id"],
                "{place}"
            );
        }
    }

    #[test]
    fn a_count_is_what_a_tool_says_in_structure_or_as_text() {
        for (result, expected) in [
            (r#"{"content":[{"type":"text","text":"[1,2]"}]}"#, "[1,2]"),
            (r#"{"content":[{"type":"text","text":"1"}],"structuredContent":{"result":[1,2]}}"#, r#"{"result":[1,2]}"#),
            (r#"{"content":[{"type":"text","text":"[1]"}],"structuredContent":{"result":"[1]"}}"#, "[1]"),
        ] {
            let answer = Answer { body: format!(r#"{{"result":{result}}}"#).into(), ..Answer::of(200, "") };
            assert_eq!(said(answer).body, expected, "{result}");
        }
        assert_eq!(said(Answer::of(200, r#"{"error":{}}"#)).body, r#"{"error":{}}"#);
    }

    #[test]
    fn a_revision_is_agreed_on_or_is_the_later_one_or_there_is_none() {
        let agreed = r#"{"result":{"protocolVersion":"2025-11-25"}}"#;
        let error = r#"{"error":{"code":-32601,"message":"no"}}"#;
        for (status, body, revision) in [
            (200, agreed, Some("2025-11-25")),
            (200, error, Some(STATELESS)),
            (400, "", Some(STATELESS)),
            (404, error, Some(STATELESS)),
            (405, "", Some(STATELESS)),
            (401, "", None),
            (429, "", None),
            (503, agreed, None),
            (200, "", None),
        ] {
            let session = Session::of(&Answer::of(status, body));
            assert_eq!(session.as_ref().map(|session| session.revision.as_str()), revision, "{status} {body}");
        }
    }
}
