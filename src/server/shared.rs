//! What all services of a layer share: the engine and the options.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::body::{LayerBody, Passage};
use super::options::Options;
use super::recorder::Recorder;
use super::rejection::Rejection;
use crate::engine::Engine;

/// A layer's store and options, made once.
pub(super) struct Shared<St> {
    pub(super) engine: Arc<Engine<St>>,
    pub(super) options: Options,
    pub(super) recorder: Arc<Recorder>,
}

impl<St> Shared<St> {
    pub(super) fn new(store: Arc<St>, options: Options) -> Self {
        let (policy, wrap_run) = (options.engine_policy(), options.wrap_run.clone());
        let recorder = Arc::new(options.recorder());
        Self { engine: Arc::new(Engine { store, policy, wrap_run }), options, recorder }
    }

    /// The answer of a refusal, which rides along in its extensions.
    pub(super) fn refuse<B: LayerBody>(&self, rejection: Rejection) -> Response<B::Through> {
        let mut response = self.options.render(&rejection).map(whole::<B>);
        response.extensions_mut().insert(rejection);
        response
    }
}

/// A body of these bytes.
fn whole<B: LayerBody>(data: Bytes) -> B::Through {
    Passage::Whole { data, trailers: None }.into()
}
