//! The state that all services of a layer share. On a handler's own answer it says what that means (`judge`) and what
//! its head says of the effect (`say_effect`); the answers that the layer gives by itself, rejections and replays, are
//! made, counted and logged here.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};

use bytes::Bytes;
use http::Response;
use http::header::HeaderValue;
use http::response::Parts;
use tracing::Span;

use super::answer::marks::Unsure;
use super::answer::meaning::Judge;
use super::answer::snapshot;
use super::bodies::body::WholeAnswer;
use super::bodies::budget::Budget;
use super::bodies::collect::Bounds;
use super::bodies::read_on::Connection;
use super::effect::Effect;
use super::header::lines;
use super::options::{Hook, Options};
use super::reject::reasons;
use super::reject::rejection::Rejection;
use super::rpc::reply::{self, Reply};
use super::rpc::stream::{BrokenEvent, Read, Stream};
use super::{rejected, warnings};
use crate::engine::name::{RAN, REPLAYED};
use crate::engine::{End, Engine, Facts, Unanswered};
use crate::key::RecordId;
use crate::record::Origin;
use crate::slots::{Event, Refusal};
use crate::store::Store;

/// The engine and the options of a layer, made once.
pub(super) struct LayerState<St> {
    /// It has the store, and brings a request to its verdict.
    pub(super) engine: Arc<Engine<St>>,
    pub(super) options: Arc<Options>,
    /// The budget for request bodies that are being read.
    pub(super) budget: Arc<Budget>,
    /// It is done once the layer has been put around a service.
    warned: Once,
}

impl<St> LayerState<St> {
    pub(super) fn new(store: Arc<St>, options: Arc<Options>) -> Self {
        let mut policy = options.policy();
        for retention in [&mut policy.retention, &mut policy.interrupted_retention] {
            *retention = options.profile.min_retention.max(*retention);
        }
        let wrap_run = options.wrap_run.clone().map(|Hook(wrap)| wrap);
        let budget = Arc::new(Budget::new(options.max_buffered));
        Self { engine: Arc::new(Engine { store, policy, wrap_run }), options, budget, warned: Once::new() }
    }

    /// Warns of options that switch the protection off, the first time that this is called.
    pub(super) fn warn(&self) {
        self.warned.call_once(|| warnings::warn(&self.options, &self.engine.policy));
    }
}

impl<St: Store> LayerState<St> {
    /// Returns the judge, which says how runs end.
    #[inline]
    pub(super) fn judge(&self) -> Judge<'_> {
        Judge {
            classify: self.options.classify.as_deref().map(|classify| &**classify),
            body: self.options.profile.judge.as_ref(),
            on_interrupted: self.engine.policy.on_interrupted,
            recorder: &self.options.recorder,
            invalid: self.options.profile.invalid,
            server_error: self.options.profile.server_error,
            frees: self.options.profile.frees,
        }
    }

    /// Returns how a stream is read that answers a covered request.
    pub(super) fn stream<'a, R>(
        &'a self,
        parts: &'a Parts,
        body: R,
        reply: Option<Arc<Reply>>,
        id: &'a RecordId,
    ) -> Stream<'a, R> {
        let Options { max_stream, max_stream_bytes, .. } = &*self.options;
        let mut shown = Response::from_parts(parts.clone(), ());
        self.options.name_outcome(&mut shown, RAN);
        let (shown, ()) = shown.into_parts();
        let broken = reply.map(|reply| {
            let policy = &self.engine.policy;
            Box::new(move || {
                let rejection = reasons::of_unanswered(Unanswered::Interrupted, policy, id, Origin::default());
                let (answer, _) = reply.fit((rejected::answer(&self.options, rejection, false), None));
                reply::as_event(answer.headers(), answer.body())
            }) as BrokenEvent<'a>
        });
        let (judge, read) = (self.judge(), Read::new(body));
        Stream { parts, shown, judge, broken, max_time: *max_stream, max_bytes: *max_stream_bytes, read }
    }

    /// Returns the bounds within which an answer is read. It has a time limit, and takes none of the budget for request
    /// bodies.
    #[inline]
    pub(super) fn bounds_of_answer(&self) -> Bounds {
        let Options { recorder, outcome_body_timeout, .. } = &*self.options;
        Bounds { bytes: recorder.max_response_body, time: Some(*outcome_body_timeout), ..Bounds::default() }
    }

    /// Says in the head of a handler's answer what it says about the operation, unless it is the operation's outcome.
    pub(super) fn say_effect(&self, parts: &mut Parts, effect: Option<Effect>, retry: Option<bool>, end: &End) {
        if effect.is_some() {
            // A service behind a proxy has replayed it. To a client that would say that it is final.
            parts.headers.remove(&self.options.recorder.replay_header_name);
        }
        let own = || lines(&parts.headers, Effect::HEADER).next();
        match effect {
            // The handler may have said whether a retry is of use. Otherwise the status says so.
            Some(Effect::None) => match own().map(HeaderValue::as_bytes) {
                Some(own) if own.starts_with(b"none;") => {
                    let retry = !has_parameter(own, "retry=?0");
                    self.options.say_retry(parts.status, &mut parts.headers, retry);
                }
                _ => Effect::None.say(&mut parts.headers, retry, None),
            },
            Some(effect) => {
                let is_over = matches!(end, End::Outcome(_) | End::Consumed { .. });
                // A service behind a proxy, whose layer is asked about the same operation, may have said that a retry
                // is of no use.
                let is_no_use = parts.extensions.get::<Unsure>().is_some()
                    && own().is_some_and(|own| has_parameter(own.as_bytes(), "retry=?0"));
                let retry = !is_over && !is_no_use && self.engine.policy.answers_retries();
                effect.say(&mut parts.headers, Some(retry), None);
                self.options.say_retry(parts.status, &mut parts.headers, retry);
            }
            // What another layer has said is of another operation.
            None if own().is_some() => _ = parts.headers.remove(Effect::HEADER),
            None => {}
        }
    }

    /// Rejects a request that did not run: reports that, and returns the [answer](Self::answer_rejection).
    pub(super) fn reject(
        &self,
        connection: Connection,
        span: &Span,
        facts: Facts<'_>,
        rejection: Rejection,
    ) -> WholeAnswer {
        self.engine.report(span, rejection.kind.slug(), facts);
        self.answer_rejection(connection, rejection)
    }

    /// Returns the answer to a request that is rejected, with the rejection in its extensions. Counts it.
    pub(super) fn answer_rejection(&self, connection: Connection, rejection: Rejection) -> WholeAnswer {
        let rejection = if connection.is_probe { rejection.of_probe() } else { rejection };
        let refused = Event::Refused(rejection.kind.index(), rejection.kind.slug());
        self.engine.store.slots().telemetry.happened(refused);
        (rejected::answer(&self.options, rejection, connection.is_grpc), None)
    }

    /// Reads a recorded answer of the operation `id`, or rejects the request if it can't be read. Counts that.
    #[inline]
    pub(super) fn recorded_answer(&self, outcome: &Bytes, id: &RecordId) -> Result<WholeAnswer, Box<Rejection>> {
        snapshot::decode(outcome).ok_or_else(|| {
            // The digest of the record was right, so another program or a later release wrote these bytes.
            self.engine.store.slots().telemetry.counters.corrupt.fetch_add(1, Ordering::Relaxed);
            Box::new(reasons::of_refusal(Refusal::Corrupt, id))
        })
    }

    /// Makes an answer a replay: it is marked as one, and reported.
    pub(super) fn replayed(&self, span: &Span, answer: &mut WholeAnswer, facts: Facts<'_>) {
        self.engine.report(span, REPLAYED, facts);
        let (replay, _) = &mut *answer;
        let marker = self.options.recorder.replay_header_name.clone();
        replay.headers_mut().insert(marker, HeaderValue::from_static("true"));
        self.options.say_retry(replay.status(), replay.headers_mut(), false);
        self.name(answer, REPLAYED);
    }

    /// Names the answer of an outcome, which says so if it does not say what became of the operation.
    pub(super) fn name(&self, (answer, trailers): &mut WholeAnswer, outcome: &'static str) {
        let (judge, trailers) = (self.judge(), trailers.as_ref());
        if !judge.is_plain(answer.status(), answer.headers(), trailers) {
            let (mut parts, data) = std::mem::take(answer).into_parts();
            if !judge.is_final(&parts, trailers, Some(&data)) {
                Effect::Unknown.say(&mut parts.headers, Some(false), None);
            }
            *answer = Response::from_parts(parts, data);
        }
        self.options.name_outcome(answer, outcome);
    }
}

/// Returns whether an Item of structured fields (RFC 9651, section 3.3) has this parameter.
fn has_parameter(item: &[u8], parameter: &str) -> bool {
    item.split(|byte| *byte == b';').skip(1).any(|part| part.trim_ascii() == parameter.as_bytes())
}
