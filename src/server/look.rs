//! The answer to a probe: once the request is known, the layer looks at its operation.

use std::convert::Infallible;

use tokio::time::Instant;
use tracing::Span;

use super::bodies::body::{SendBody, WholeAnswer};
use super::bodies::read_on::Connection;
use super::gate::probe;
use super::on_replay::{Asking, recorded};
use super::reject::reasons;
use super::request::{Exchange, Incoming, answer_of, as_of_sub_request};
use crate::engine::{Facts, Looked};
use crate::record::Operation;
use crate::slots::Event;
use crate::store::Store;

impl<S, St: Store, M, B: SendBody> Exchange<S, St, M, B> {
    /// Answers a probe with what a retry would get, and calls no service.
    pub(super) async fn look(
        self: Box<Self>,
        connection: Connection,
        span: &Span,
        operation: Operation,
        is_sub_request: bool,
    ) -> WholeAnswer {
        // The service, the body and its share of the budget are free for others from here on.
        let (layer, parts, scope) = {
            let Self { request, scope, .. } = *self;
            let Incoming { layer, parts, .. } = *request;
            (layer, parts, scope)
        };
        let (id, began) = (operation.id, Instant::now());
        let found = layer.engine.look(&operation).await;
        // A key belongs to its scope. Where there is none, the credentials say whose it is.
        let found = found.filter(|found| scope.is_some() || probe::is_of_client(&found.verdict));
        let facts = Facts { id: Some(&id), ..Facts::default() };
        let verdict = match found {
            Some(Looked { verdict, runs_again: false }) => verdict,
            Some(Looked { verdict, .. }) => {
                let origin = verdict.attempt().map(|attempt| attempt.origin.clone()).unwrap_or_default();
                let rejection = reasons::would_run_again(&id).of(origin);
                return layer.reject(connection, span, facts, rejection);
            }
            None => return layer.reject(connection, span, facts, reasons::not_found()),
        };
        let instead = match (recorded(&verdict), &layer.options.on_replay) {
            (Some(outcome), Some(hook)) => {
                Asking::of(hook, &parts, began).about(outcome, &layer.engine, layer.judge()).await
            }
            (Some(_), None) => {
                layer.engine.store.slots().telemetry.happened(Event::Replayed(began));
                None
            }
            (None, _) => None,
        };
        // No run of its own has produced an answer.
        let Ok((answer, trailers)) = answer_of::<Infallible, St>(&layer, connection, span, &id, verdict, None, instead);
        (if is_sub_request { as_of_sub_request(answer) } else { answer }, trailers)
    }
}
