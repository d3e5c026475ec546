//! A store chosen at run time.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::contract::{Health, InterruptedRun, Page, Records, Sealed, Store};
use super::error::StoreError;
use crate::key::RecordId;
use crate::record::{Applied, Record, Transition};
use crate::slots::Slots;

type Boxed<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Any store, for programs that choose one at run time. Each call costs one allocation.
#[derive(Debug, Clone)]
pub struct AnyStore(Arc<dyn ErasedStore>);

impl AnyStore {
    /// Erases the type of `store`.
    #[must_use]
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }
}

/// Defines each method once, for the object-safe trait, its implementation by every store, and `AnyStore`'s own
/// implementation.
macro_rules! methods {
    ({ $($now:ident() -> $said:ty;)* } { $($later:ident($($name:ident: $type:ty),*) -> $answer:ty;)* }) => {
        trait ErasedStore: Debug + Send + Sync {
            $(fn $now(&self) -> $said;)*
            $(fn $later(&self, $($name: $type),*) -> Boxed<'_, $answer>;)*
            fn recall(&self, id: RecordId) -> Option<Record>;
            fn changed(&self, id: RecordId) -> BoxFuture<'static, ()>;
            fn health(&self) -> Health;
            fn close(&self) -> Boxed<'_, ()>;
        }

        impl<St: Store> ErasedStore for St {
            $(fn $now(&self) -> $said {
                Records::$now(self)
            })*
            $(fn $later(&self, $($name: $type),*) -> Boxed<'_, $answer> {
                Box::pin(Records::$later(self, $($name),*))
            })*

            fn recall(&self, id: RecordId) -> Option<Record> {
                Records::recall(self, id)
            }

            fn changed(&self, id: RecordId) -> BoxFuture<'static, ()> {
                Records::changed(self, id)
            }

            fn health(&self) -> Health {
                Store::health(self)
            }

            fn close(&self) -> Boxed<'_, ()> {
                Box::pin(Store::close(self))
            }
        }

        impl Records for AnyStore {
            fn recall(&self, id: RecordId) -> Option<Record> {
                self.0.recall(id)
            }

            fn changed(&self, id: RecordId) -> BoxFuture<'static, ()> {
                self.0.changed(id)
            }

            $(fn $now(&self) -> $said {
                self.0.$now()
            })*
            $(fn $later(&self, $($name: $type),*) -> impl Future<Output = Result<$answer, StoreError>> + Send {
                self.0.$later($($name),*)
            })*
        }
    };
}

impl Sealed for AnyStore {}

methods! {
    {
        slots() -> &Arc<Slots>;
        is_exclusive() -> bool;
    }
    {
        load(id: RecordId) -> Option<Record>;
        apply(id: RecordId, transition: Transition) -> Applied;
        interrupted(page: Page) -> Vec<InterruptedRun>;
        sweep(limit: usize) -> usize;
    }
}

impl Store for AnyStore {
    fn health(&self) -> Health {
        self.0.health()
    }

    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.0.close()
    }
}
