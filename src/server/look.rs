//! The answer to a probe: it takes the steps of an exchange until the request is known, and looks at the operation.

use std::sync::Arc;

use tokio::time::Instant;

use super::bodies::body::{BodyMode, SendBody};
use super::on_replay::{Asking, recorded};
use super::options::Hook;
use super::probe;
use super::read_on::Connection;
use super::reject::reasons;
use super::request::{Exchange, RunAnswer, answer_of, as_of_sub_request};
use crate::engine::{self, Facts, Looked};
use crate::slots::Event;
use crate::store::Store;

impl<S, St: Store, B: SendBody, M: 'static> Exchange<S, St, B, M> {
    /// Answers a probe with what a retry would get, and calls no service.
    pub(super) async fn look<R, E>(self: Box<Self>, body: Option<B>) -> RunAnswer<M, R, E>
    where
        M: BodyMode<R>,
        R: SendBody,
    {
        let layer = Arc::clone(&self.layer);
        let span = engine::span();
        let connection = Connection::of(&self.parts, true);
        let (exchange, operation, _) = match self.identify::<R>(&layer, connection, &span, body).await {
            Ok(identified) => identified,
            Err(rejection) => return Ok(rejection),
        };
        let (id, is_sub_request) = (operation.id, exchange.is_sub_request());
        // The service, the body and its share of the budget are free for others from here on.
        let (parts, scope) = {
            let exchange = exchange;
            let Self { parts, scope, .. } = *exchange;
            (parts, scope)
        };
        let began = Instant::now();
        let found = layer.engine.look(&operation).await;
        // A key belongs to its scope. Where there is none, the credentials say whose it is.
        let found = found.filter(|found| scope.is_some() || probe::is_of_client(&found.verdict));
        let facts = Facts { id: Some(&id), ..Facts::default() };
        let verdict = match found {
            Some(Looked { verdict, runs_again: false }) => verdict,
            Some(Looked { verdict, .. }) => {
                let origin = verdict.attempt().map(|attempt| attempt.origin.clone()).unwrap_or_default();
                let rejection = reasons::would_run_again(&id).of(origin);
                return Ok(layer.reject::<M, R>(connection, &span, facts, rejection));
            }
            None => return Ok(layer.reject::<M, R>(connection, &span, facts, reasons::not_found())),
        };
        let instead = match (recorded(&verdict), layer.options.on_replay.clone()) {
            (Some(outcome), Some(Hook(hook))) => Asking { hook, parts, began }.about(outcome, &layer.engine).await,
            (Some(_), None) => {
                layer.engine.store.slots().telemetry.happened(Event::Replayed(began));
                None
            }
            (None, _) => None,
        };
        let answer = answer_of::<M, R, E, St>(&layer, connection, &span, &id, verdict, None, instead);
        if is_sub_request { as_of_sub_request(answer) } else { answer }
    }
}
