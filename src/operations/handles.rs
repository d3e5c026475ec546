//! The methods by which the layer and a consumer give their operators' interface.

use std::sync::Arc;

use super::answer::Recording;
use super::operations::Operations;
use crate::engine::once::Once;
#[cfg(feature = "server")]
use crate::server::layer::IdempotencyLayer;
use crate::store::Store;

#[cfg(feature = "server")]
impl<St: Store, M> IdempotencyLayer<St, M> {
    /// Returns the operators' interface to the operations of this store. It records operators' answers, and asks the
    /// reconciler, as this layer's options say.
    #[must_use]
    pub fn operations(&self) -> Operations<St> {
        let recording = Recording::Http(Arc::clone(self.recorder()));
        Operations::new(Arc::clone(self.engine()), recording)
    }
}

impl<St: Store> Once<St> {
    /// Returns the operators' interface to the operations of this store. It keeps operators' outcomes, and asks the
    /// reconciler, as this consumer's options say.
    #[must_use]
    pub fn operations(&self) -> Operations<St> {
        Operations::new(Arc::clone(self.engine()), Recording::Bytes)
    }
}
