//! What a check works with: it sends requests, counts them, and notes what came of each.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;

use crate::dialect::{Dialect, Rule};
use crate::effects::{self, Ledger};
use crate::finding::{Event, Finding, Severity};
use crate::http::connection::{self, Connection, HangUp};
use crate::http::failure::Failure;
use crate::http::message::{Answer, Message};
use crate::mcp::{self, Session};
use crate::plan::{Count, Endpoint, Plan};

/// How long a check waits for a run that is under way.
pub(crate) const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The first pause between two of its requests, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// How many connections are made at once, and the pause after them.
const WAVE: usize = 4;
const BETWEEN_WAVES: Duration = Duration::from_millis(5);

/// Why a check can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The plan does not say what the check needs.
    #[error("{0}")]
    Skip(&'static str),
    /// The plan lacks this field.
    #[error("it needs `--{option}`, or `{0}` in a plan", option = .0.replace('_', "-"))]
    Needs(&'static str),
    #[error("the most requests were sent; --max-requests permits more")]
    Budget,
    #[error("{0}")]
    Failed(#[from] Failure),
    #[error("{0}")]
    Other(String),
}

/// What the checks of an endpoint share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The requests that may still be sent, of all checks together.
    pub(crate) left: usize,
    /// Keys are sent in quotes, as a String of structured fields.
    pub(crate) is_quoted: bool,
    /// Two operations have got equal answers.
    pub(crate) are_alike: bool,
    /// Each request of one key runs.
    pub(crate) ignores_keys: bool,
    /// Headers that the server makes anew for each replay, such as an id of its own.
    pub(crate) anew: Vec<String>,
    /// In what a replay differs from the first answer, wherever there is one.
    pub(crate) parts: Vec<String>,
    /// The sessions over MCP, each with the headers of its requests.
    pub(crate) sessions: Vec<(Vec<(String, String)>, Session)>,
    /// The number of the last call.
    pub(crate) calls: u64,
}

impl Shared {
    /// Whether each replay of the endpoint that was checked last differs in what these findings say. A note says
    /// nothing.
    pub(crate) fn knows(&self, findings: &[Finding]) -> bool {
        let is_noted = |finding: &Finding| finding.part.as_ref().is_some_and(|part| self.parts.contains(part));
        findings.iter().all(|finding| finding.severity == Severity::Note || is_noted(finding))
    }
}

/// Locks what several requests share. A panic leaves nothing half done in it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Probe<'a> {
    pub(crate) endpoint: &'a Endpoint,
    plan: &'a Plan,
    shared: &'a Mutex<Shared>,
    began: Instant,
    events: Mutex<Vec<Event>>,
    findings: Mutex<Vec<Finding>>,
}

impl<'a> Probe<'a> {
    pub(crate) fn new(plan: &'a Plan, endpoint: &'a Endpoint, shared: &'a Mutex<Shared>) -> Self {
        Self { endpoint, plan, shared, began: Instant::now(), events: Mutex::default(), findings: Mutex::default() }
    }

    /// Reads or changes what the checks share.
    pub(crate) fn shared<T>(&self, with: impl FnOnce(&mut Shared) -> T) -> T {
        with(&mut lock(self.shared))
    }

    /// Takes so many requests from those that may still be sent.
    fn take(&self, requests: usize) -> Result<(), Stop> {
        let left = self.shared(|shared| shared.left.checked_sub(requests).map(|left| shared.left = left));
        left.ok_or(Stop::Budget)
    }

    pub(crate) fn dialect(&self) -> &Dialect {
        &self.endpoint.dialect
    }

    /// A key that was never used, in the form that the profile asks for.
    pub(crate) fn new_key(&self) -> String {
        self.dialect().new_key()
    }

    /// What was found, and what was sent.
    pub(crate) fn end(self) -> (Vec<Finding>, Vec<Event>, Duration) {
        let took = self.began.elapsed();
        let mut events = self.events.into_inner().unwrap_or_default();
        events.sort_by_key(|event| event.began);
        (self.findings.into_inner().unwrap_or_default(), events, took)
    }

    /// Notes a finding.
    pub(crate) fn found(&self, severity: Severity, rule: Rule, what: impl Into<String>) {
        self.push(severity, rule, what.into(), false, None);
    }

    /// Notes a finding that rests on how many effects there were.
    pub(crate) fn counted(&self, severity: Severity, rule: Rule, what: impl Into<String>) {
        let mut what = what.into();
        if !self.can_count() {
            what.push_str(" (inferred: the answers differ)");
        }
        self.push(severity, rule, what, true, None);
    }

    /// Notes that requests with one key have more than one effect.
    pub(crate) fn once(&self, effects: usize, rule: Rule, what: impl Into<String>) {
        if effects > 1 {
            self.counted(Severity::Dangerous, rule, what);
        }
    }

    /// Notes that a replay differs from the first answer in this part of it.
    pub(crate) fn differs(&self, severity: Severity, rule: Rule, part: &str, what: String) {
        self.push(severity, rule, what, false, Some(part.to_owned()));
    }

    /// A check that finds the same twice has one finding.
    fn push(&self, severity: Severity, rule: Rule, what: String, is_counted: bool, part: Option<String>) {
        let finding = Finding { severity, what, rule: self.dialect().paragraph(rule), is_counted, part };
        let mut findings = lock(&self.findings);
        if !findings.iter().any(|held| held.severity == severity && held.what == finding.what) {
            findings.push(finding);
        }
    }

    /// Whether something was found that breaks the check.
    pub(crate) fn is_broken(&self) -> bool {
        self.has(|finding| finding.severity > Severity::Note)
    }

    /// Whether it rests on a count alone.
    pub(crate) fn is_broken_by_count(&self) -> bool {
        self.is_broken() && !self.has(|finding| finding.severity > Severity::Note && !finding.is_counted)
    }

    fn has(&self, is: fn(&Finding) -> bool) -> bool {
        lock(&self.findings).iter().any(is)
    }

    /// The endpoint's request, without a key.
    pub(crate) fn plain(&self) -> Message {
        self.endpoint.request.clone()
    }

    /// The endpoint's request, with this key in the form that the server honours.
    pub(crate) fn keyed(&self, key: &str) -> Message {
        self.keyed_as(key, self.is_quoted())
    }

    /// The endpoint's request, with this key, in quotes or bare.
    pub(crate) fn keyed_as(&self, key: &str, is_quoted: bool) -> Message {
        let value = if is_quoted { format!("\"{key}\"") } else { key.to_owned() };
        self.plain().with(&self.endpoint.key_header, value)
    }

    /// Whether keys are sent in quotes.
    pub(crate) fn is_quoted(&self) -> bool {
        self.shared(|shared| shared.is_quoted)
    }

    /// Whether two operations get equal answers.
    pub(crate) fn are_alike(&self) -> bool {
        self.shared(|shared| shared.are_alike)
    }

    /// Whether a success is the answer of the first request, and of no operation of its own. `before` is what there was
    /// before it.
    pub(crate) async fn is_first(&self, first: &Answer, other: &Answer, before: &Option<Ledger>) -> Result<bool, Stop> {
        let is_same = other.is_success() && other.says_same(first);
        Ok(is_same && (!self.are_alike() || self.effects(before, []).await? == 0))
    }

    /// Sends a request over a connection of its own.
    pub(crate) async fn send(&self, label: &str, message: &Message) -> Result<Answer, Stop> {
        let began = self.began.elapsed();
        let (sent, answer) = self.exchange(self.tool_of(message), message).await?;
        self.note(began, label, &sent, answer.as_ref().map(Answer::summary));
        Ok(answer?)
    }

    pub(crate) async fn connection(&self) -> Result<Connection, Stop> {
        Ok(Connection::open(&self.plan.address).await?)
    }

    /// Sends a request over this connection.
    pub(crate) async fn send_over(
        &self,
        connection: &mut Connection,
        label: &str,
        message: &Message,
    ) -> Result<Result<Answer, Failure>, Stop> {
        let sent = self.wired(self.tool_of(message), message).await?;
        self.take(1)?;
        let began = self.began.elapsed();
        let answer = connection.send(&sent).await.map(|answer| self.judged(&sent, answer));
        self.note(began, label, &sent, answer.as_ref().map(Answer::summary));
        Ok(answer)
    }

    /// Sends requests at once: the connections are there before the first one is sent. Of each, the answer is there.
    pub(crate) async fn at_once(
        &self,
        label: &str,
        messages: &[Message],
    ) -> Result<Vec<Result<Answer, Failure>>, Stop> {
        let copies = messages.len();
        let mut sent = Vec::with_capacity(copies);
        for message in messages {
            sent.push(self.wired(self.tool_of(message), message).await?);
        }
        self.take(copies)?;
        let mut connections = Vec::with_capacity(copies);
        while connections.len() < copies {
            // Some servers have room for five that they have not accepted yet.
            let wave = WAVE.min(copies - connections.len());
            for connection in join_all((0..wave).map(|_| Connection::open(&self.plan.address))).await {
                connections.push(connection?);
            }
            tokio::time::sleep(BETWEEN_WAVES).await;
        }
        let began = self.began.elapsed();
        let sending = connections.into_iter().zip(&sent).map(|(mut connection, message)| async move {
            connection.send(message).await.map(|answer| self.judged(message, answer))
        });
        let answers = join_all(sending).await;
        let mut statuses = std::collections::BTreeMap::<String, usize>::new();
        for answer in &answers {
            let said = answer.as_ref().map_or_else(ToString::to_string, |answer| answer.status.as_u16().to_string());
            *statuses.entry(said).or_default() += 1;
        }
        let said: Vec<_> = statuses.into_iter().map(|(status, count)| format!("{count} × {status}")).collect();
        if let Some(message) = sent.first() {
            self.note::<Failure>(began, &format!("{label}, {copies} at once"), message, Ok(said.join(", ")));
        }
        Ok(answers)
    }

    /// Sends a request, and hangs up.
    pub(crate) async fn hang_up(&self, label: &str, message: &Message, when: HangUp) -> Result<(), Stop> {
        let sent = self.wired(self.tool_of(message), message).await?;
        self.take(1)?;
        let began = self.began.elapsed();
        let end = connection::hang_up(&self.plan.address, &sent, when).await;
        let said = end.as_ref().map(|()| "the client hangs up".to_owned());
        self.note(began, label, &sent, said);
        Ok(end?)
    }

    /// Sends a request until it is not refused because the first one is under way.
    pub(crate) async fn settled(&self, label: &str, message: &Message) -> Result<Answer, Stop> {
        let (began, mut pause) = (Instant::now(), PAUSE);
        loop {
            let answer = self.send(label, message).await?;
            if !answer.says_wait() || began.elapsed() > SETTLE_TIMEOUT {
                return Ok(answer);
            }
            let asked = answer.header("retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs);
            tokio::time::sleep(asked.unwrap_or(pause).min(Duration::from_secs(5))).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Sends the endpoint's request with a new key, and expects it to succeed. Returns the key, and the answer.
    pub(crate) async fn first(&self) -> Result<(String, Answer), Stop> {
        let key = self.new_key();
        let answer = self.succeeds("the first request", &self.keyed(&key)).await?;
        Ok((key, answer))
    }

    /// Sends a request that has to succeed.
    pub(crate) async fn succeeds(&self, label: &str, message: &Message) -> Result<Answer, Stop> {
        let answer = self.send(label, message).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        Err(Stop::Other(format!("{label} does not succeed: {}", answer.summary())))
    }

    /// Whether a key of this time is still kept: the retention of a plan may be short.
    pub(crate) fn is_kept(&self, since: Instant) -> Result<(), Stop> {
        if self.endpoint.retention.is_some_and(|retention| since.elapsed() * 2 > retention) {
            return Err(Stop::Skip("the retention is too short for so many requests"));
        }
        Ok(())
    }

    /// Sends the plan's reset.
    pub(crate) async fn reset(&self) -> Result<(), Stop> {
        let Some((method, target)) = &self.plan.reset else { return Ok(()) };
        self.succeeds("the reset", &self.bare(method, target)).await.map(drop)
    }

    /// A request without a body, with the endpoint's headers.
    pub(crate) fn bare(&self, method: &Method, target: &str) -> Message {
        let headers =
            self.endpoint.request.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
        let (method, target) = (method.clone(), target.to_owned());
        Message { method, target, headers: headers.cloned().collect(), body: String::new(), id: None }
    }

    /// What the server says of its effects now; `None` if the plan does not say how to count.
    pub(crate) async fn ledger(&self) -> Result<Option<Ledger>, Stop> {
        let (tool, message) = match &self.endpoint.count {
            None => return Ok(None),
            // The server may require a key of each tool.
            Some(Count::Tool(tool)) => (Some(tool), self.keyed(&self.new_key()).with_body("{}")),
            Some(Count::Request(method, target)) => (None, self.bare(method, target)),
        };
        let began = self.began.elapsed();
        let (message, answer) = self.exchange(tool, &message).await?;
        let answer = if tool.is_some() { mcp::said(answer?) } else { answer? };
        let ledger = Ledger::of(&answer);
        let counted = ledger.as_ref().map_or_else(|| answer.summary(), ToString::to_string);
        self.note::<Failure>(began, "effects are counted", &message, Ok(counted));
        let unreadable = || Stop::Other(format!("effects can't be counted: {}", answer.summary()));
        ledger.map(Some).ok_or_else(unreadable)
    }

    /// How many effects there were since: counted, or inferred from the answers.
    pub(crate) async fn effects<'b>(
        &self,
        before: &Option<Ledger>,
        answers: impl IntoIterator<Item = &'b Answer>,
    ) -> Result<usize, Stop> {
        let counted = before.as_ref().zip(self.ledger().await?).map(|(before, after)| after.since(before));
        Ok(counted.unwrap_or_else(|| effects::inferred(answers)))
    }

    /// Whether effects that were there before are gone: the server keeps them in memory.
    pub(crate) async fn has_lost(&self, before: &Option<Ledger>) -> Result<bool, Stop> {
        Ok(before.as_ref().zip(self.ledger().await?).is_some_and(|(before, after)| after.is_less_than(before)))
    }

    /// Whether new effects still show where the plan counts them. A list may show the oldest alone.
    pub(crate) async fn still_counts(&self) -> Result<bool, Stop> {
        let before = self.ledger().await?;
        let ((_, one), (_, other)) = (self.first().await?, self.first().await?);
        // Equal answers say nothing of the list.
        Ok(one.body == other.body || self.effects(&before, [&one, &other]).await? == 2)
    }

    /// Whether the plan says how to count effects.
    pub(crate) fn can_count(&self) -> bool {
        self.endpoint.count.is_some()
    }

    fn note<E: ToString>(&self, began: Duration, label: &str, message: &Message, received: Result<String, E>) {
        let received = received.unwrap_or_else(|error| error.to_string());
        let sent = message.curl(&self.plan.origin(), &self.endpoint.key_header);
        let (label, ended) = (label.to_owned(), self.began.elapsed());
        lock(&self.events).push(Event { began, ended, label, sent, received });
    }
}

mod calls;
#[cfg(test)]
mod tests;
