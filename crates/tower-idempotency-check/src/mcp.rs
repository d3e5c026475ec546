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
/// Where the key is, unless the plan says another place.
pub(crate) const KEY_PLACE: &str = "/params/_meta/idempotencyKey";

/// A tool, and where its calls have their key.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// As a JSON Pointer into the call.
    pub(crate) key_place: String,
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
    /// The request that asks for a session.
    pub(crate) fn asked(endpoint: &Message) -> Message {
        let client = json!({"name": "idem check", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"protocolVersion": OFFERED, "capabilities": {}, "clientInfo": client});
        message(endpoint, json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}), Some(0.into()))
    }

    /// Reads the answer to [`asked`](Self::asked). A server of the later revision has no such method.
    pub(crate) fn of(answer: &Answer) -> Self {
        let agreed = answer.json().filter(|_| answer.status.is_success());
        let revision = agreed.as_ref().and_then(|answer| answer["result"]["protocolVersion"].as_str());
        let id = revision.and_then(|_| answer.header("mcp-session-id")).map(str::to_owned);
        Self { revision: revision.unwrap_or(STATELESS).to_owned(), id }
    }

    /// The notification that ends the opening of the session, if the revision has one.
    pub(crate) fn opened(&self, endpoint: &Message) -> Option<Message> {
        let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        (self.revision != STATELESS).then(|| self.named(message(endpoint, notification, None)))
    }

    /// The call of the tool with the request's arguments and the key in its header, under this `id`.
    pub(crate) fn call(&self, tool: &Tool, key_header: &str, request: &Message, id: Value) -> Message {
        let arguments = serde_json::from_str(&request.body).unwrap_or_else(|_| json!({}));
        let mut call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call"});
        call["params"] = json!({"name": tool.name, "arguments": arguments, "_meta": {"progressToken": id}});
        let is_key = |name: &str| name.eq_ignore_ascii_case(key_header);
        if let Some((_, key)) = request.headers.iter().find(|(name, _)| is_key(name)) {
            put(&mut call, &tool.key_place, key);
        }
        let without = request.clone().without(key_header);
        if self.revision != STATELESS {
            return self.named(message(&without, call, Some(id)));
        }
        for (name, value) in [("protocolVersion", STATELESS.into()), ("clientCapabilities", json!({}))] {
            call["params"]["_meta"][format!("io.modelcontextprotocol/{name}")] = value;
        }
        let call = message(&without, call, Some(id));
        self.named(call).with("mcp-method", "tools/call").with("mcp-name", &tool.name)
    }

    /// Adds what each request of the session has in its head.
    fn named(&self, message: Message) -> Message {
        let message = message.with("mcp-protocol-version", &self.revision);
        match &self.id {
            Some(id) => message.with("mcp-session-id", id),
            None => message,
        }
    }
}

/// A message of JSON-RPC to the endpoint, with the headers of its request.
fn message(endpoint: &Message, body: Value, id: Option<Value>) -> Message {
    let message = Message { method: Method::POST, body: body.to_string(), id, ..endpoint.clone() };
    message.set("content-type", "application/json").set("accept", "application/json, text/event-stream")
}

/// Puts a key at the place of a pointer. Objects on the way that are not there are made.
fn put(call: &mut Value, place: &str, key: &str) {
    let mut at = call;
    for name in place.split('/').skip(1) {
        at = &mut at[name.replace("~1", "/").replace("~0", "~")];
    }
    *at = key.into();
}

/// Reads the answer to a call with this `id`: what is left of its body is the same for each retry.
pub(crate) fn read(mut answer: Answer, id: &Value) -> Answer {
    let members = if is_rpc_answer(&answer.body) { answer.json() } else { None };
    let Some(Value::Object(mut members)) = members else {
        // By another status, the call has failed.
        answer.is_astray = answer.status.is_success();
        return answer;
    };
    let answered = members.remove("id").unwrap_or_default();
    // A refusal of what the server has not read has null.
    answer.is_astray = answered != *id && (answer.status.is_success() || !answered.is_null());
    // An error of a tool is a result to the protocol, and no success to the client.
    if members.get("result").is_some_and(|result| result["isError"] == true) {
        answer.says = Some(Says::Refused);
    }
    answer.body = Value::Object(members).to_string().into();
    answer
}

/// What a tool has said, as the body of an answer, for a count.
pub(crate) fn said(mut answer: Answer) -> Answer {
    let result = answer.json().unwrap_or_default();
    let text = result.pointer("/result/content/0/text").and_then(Value::as_str);
    answer.body = match text {
        Some(text) => Bytes::copy_from_slice(text.as_bytes()),
        None => result["result"]["structuredContent"].to_string().into(),
    };
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
            let answer = Answer { body: body.clone().into(), ..Answer::of(status, "") };
            assert_eq!(read(answer, &json!(7)).is_astray, is_astray, "{status} {body}");
        }
    }

    #[test]
    fn what_is_left_of_an_answer_is_the_same_under_each_id_and_an_error_of_the_tool_is_no_success() {
        let of = |body: &'static str, id: Value| read(Answer::of(200, body), &id);
        let [one, other] =
            [of(r#"{"id":1,"result":{"a":1}}"#, json!(1)), of(r#"{"result":{"a":1},"id":"x"}"#, json!("x"))];
        assert!(one.is_same(&other) && one.is_success());
        let declined = of(r#"{"id":1,"result":{"isError":true}}"#, json!(1));
        assert!(!declined.is_success() && declined.is_client_error());
    }

    #[test]
    fn a_call_has_its_key_where_the_plan_says_and_not_in_its_head() {
        let session = Session { revision: OFFERED.to_owned(), id: Some("s".to_owned()) };
        let headers = vec![("Authorization".to_owned(), "a".to_owned())];
        let (body, target) = (r#"{"amount":5}"#.to_owned(), "/mcp".to_owned());
        let request = Message { method: Method::POST, target, headers, body, id: None }.with("idempotency-key", "k");
        for place in [KEY_PLACE, "/params/idempotencyKey", "/params/arguments/a~1b", "/params/arguments/meta/key"] {
            let tool = Tool { name: "pay".to_owned(), key_place: place.to_owned() };
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
}
