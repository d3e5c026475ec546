//! The methods by which the layer and a consumer give their operators' interface.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::encoding::Encoding;
use super::reader::Operations;
use crate::engine::once::Once;
#[cfg(feature = "server")]
use crate::server::layer::layer::IdempotencyLayer;
use crate::store::Store;

#[cfg(feature = "server")]
impl<St: Store, M> IdempotencyLayer<St, M> {
    /// Returns the operators' interface to the operations of this store. It records operators' answers, and asks the
    /// reconciler, as this layer's options say.
    #[must_use]
    pub fn operations(&self) -> Operations<St> {
        let encoding = Encoding::Http(Arc::clone(self.recorder()));
        Operations { engine: Arc::clone(self.engine()), encoding }
    }
}

impl<St: Store, T: DeserializeOwned> Once<St, T> {
    /// Returns the operators' interface to the operations of this store. It keeps operators' outcomes, and asks the
    /// reconciler, as this consumer's options say. An outcome is JSON that this consumer can read.
    #[must_use]
    pub fn operations(&self) -> Operations<St> {
        let check = |json: &[u8]| serde_json::from_slice::<T>(json).map(drop);
        Operations { engine: Arc::clone(self.engine()), encoding: Encoding::Bytes(check) }
    }
}
