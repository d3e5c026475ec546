//! A store chosen at run time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::contract::{Health, InterruptedRecord, Sealed, Store};
use super::error::StoreError;
use crate::key::RecordId;
use crate::record::{Claim, Claimed, Completion, Fence, Hold, Record, Resolution, Settled};
use crate::slots::Slots;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Any store, for programs that choose one at run time. Costs one allocation a verb.
#[derive(Debug, Clone)]
pub struct AnyStore(Arc<dyn ErasedStore>);

impl AnyStore {
    /// Erases the type of `store`.
    #[must_use]
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }
}

/// States each verb once, for the twin trait, its implementation by every store, and the store made of it.
macro_rules! verbs {
    ($($verb:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {
        trait ErasedStore: std::fmt::Debug + Send + Sync {
            fn slots(&self) -> &Arc<Slots>;
            fn health(&self) -> Health;
            $(fn $verb(&self, $($name: $type),*) -> Boxed<'_, $answer>;)*
        }

        impl<St: Store> ErasedStore for St {
            fn slots(&self) -> &Arc<Slots> {
                Store::slots(self)
            }
            fn health(&self) -> Health {
                Store::health(self)
            }
            $(fn $verb(&self, $($name: $type),*) -> Boxed<'_, $answer> {
                Box::pin(Store::$verb(self, $($name),*))
            })*
        }

        impl Store for AnyStore {
            fn slots(&self) -> &Arc<Slots> {
                self.0.slots()
            }
            fn health(&self) -> Health {
                self.0.health()
            }
            $(fn $verb(&self, $($name: $type),*) -> impl Future<Output = Result<$answer, StoreError>> + Send {
                self.0.$verb($($name),*)
            })*
        }
    };
}

impl Sealed for AnyStore {}

verbs! {
    load(id: RecordId) -> Option<Record>;
    claim(claim: Claim) -> Claimed;
    reclaim(claim: Claim, interrupted: Fence) -> Option<Hold>;
    inquire(id: RecordId, interrupted: Fence) -> Option<Fence>;
    complete(completion: Completion) -> Settled;
    release(id: RecordId, fence: Fence) -> Settled;
    interrupt(id: RecordId, fence: Fence, status: Option<u16>) -> Settled;
    resolve(id: RecordId, fence: Fence, resolution: Resolution) -> Settled;
    interrupted(limit: usize, status: Option<u16>) -> Vec<InterruptedRecord>;
    sweep(limit: usize) -> usize;
}
