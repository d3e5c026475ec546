//! How a probe sends its requests. Those of a tool over MCP become calls, in a session if the server has sessions.

use http::{Method, StatusCode};
use serde_json::json;

use super::{Probe, Stop};
use crate::dialect::Rule;
use crate::finding::Severity;
use crate::http::connection::Connection;
use crate::http::failure::Failure;
use crate::http::message::{Answer, Message};
use crate::mcp::{self, Session, Tool};

impl Probe<'_> {
    /// Sends a request over a connection of its own. Returns what was sent, too.
    pub(super) async fn exchange(
        &self,
        tool: Option<&Tool>,
        message: &Message,
    ) -> Result<(Message, Result<Answer, Failure>), Stop> {
        let mut has_forgotten = false;
        loop {
            let sent = self.wired(tool, message).await?;
            let answer = self.send_once(&sent).await?;
            // A server that was restarted has forgotten its sessions, and a client opens another one (revision
            // 2025-06-18, Session Management).
            let is_forgotten = answer.as_ref().is_ok_and(|answer| answer.status == StatusCode::NOT_FOUND);
            if has_forgotten || !is_forgotten || !self.forget_sessions() {
                return Ok((sent, answer));
            }
            has_forgotten = true;
        }
    }

    async fn send_once(&self, sent: &Message) -> Result<Result<Answer, Failure>, Stop> {
        self.take(1)?;
        let answer = async { Connection::open(&self.plan.address).await?.send(sent).await }.await;
        Ok(answer.map(|answer| self.judged(sent, answer)))
    }

    /// The tool that this request calls.
    pub(super) fn tool_of(&self, message: &Message) -> Option<&Tool> {
        let is_call = message.method == Method::POST && message.target == self.endpoint.request.target;
        self.endpoint.tool.as_ref().filter(|_| is_call)
    }

    /// The request as it is sent: of a tool, the call of it.
    pub(super) async fn wired(&self, tool: Option<&Tool>, message: &Message) -> Result<Message, Stop> {
        let Some(tool) = tool else { return Ok(message.clone()) };
        let key_header = &self.endpoint.key_header;
        let session = self.session(message.clone().without(key_header)).await?;
        let id = message.id.clone().unwrap_or_else(|| {
            self.shared(|shared| {
                shared.calls += 1;
                json!(shared.calls)
            })
        });
        Ok(session.call(tool, key_header, message, id))
    }

    /// The session of requests with these headers: of one account.
    async fn session(&self, plain: Message) -> Result<Session, Stop> {
        let held = |shared: &super::Shared| shared.sessions.iter().find(|(of, _)| *of == plain.headers).cloned();
        if let Some((_, session)) = self.shared(|shared| held(shared)) {
            return Ok(session);
        }
        let began = self.began.elapsed();
        let session = match Session::asked(&plain) {
            Err(session) => session,
            Ok(asked) => {
                let answer = self.send_once(&asked).await?;
                self.note(began, "a session is asked for", &asked, answer.as_ref().map(Answer::summary));
                let answer = answer?;
                let refused = || Stop::Other(format!("the server opens no session: {}", answer.summary()));
                Session::of(&answer).ok_or_else(refused)?
            }
        };
        if let Some(opened) = session.opened(&plain) {
            let answer = self.send_once(&opened).await?;
            self.note(began, "the session is opened", &opened, answer.as_ref().map(Answer::summary));
        }
        self.shared(|shared| shared.sessions.push((plain.headers, session.clone())));
        Ok(session)
    }

    /// Forgets the sessions, so that the next call opens another one. Returns whether there was one.
    pub(crate) fn forget_sessions(&self) -> bool {
        self.shared(|shared| std::mem::take(&mut shared.sessions)).iter().any(|(_, session)| session.id.is_some())
    }

    /// An answer, with what its body says.
    pub(super) fn judged(&self, sent: &Message, answer: Answer) -> Answer {
        let answer = match &self.endpoint.judge {
            Some(judge) => answer.judged(judge),
            None => answer,
        };
        let Some(id) = &sent.id else { return answer };
        let answer = mcp::read(answer, id);
        if answer.is_astray {
            let what = "an answer is none to its call, by its `id` or its form: the client waits on for its own";
            self.differs(Severity::Wrong, Rule::Id, "id", what.to_owned());
        }
        answer
    }
}
