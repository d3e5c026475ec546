//! A store chosen at run time. Each call of an operator's command comes through here on its way to the store.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::contract::{Gauges, Health, Records, Sealed, Store};
use super::error::StoreError;
use super::listed::ListedRecord;
use super::page::{Cursor, List, Page};
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::{Fence, Record, Stepped, Transition};
use crate::slots::Slots;

/// The future that an object-safe method returns in place of an `impl Future`.
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

/// Defines each method of [`Records`] and of [`Store`] once, for the object-safe trait, its implementation by every
/// store, and `AnyStore`'s own implementation. The methods in the first braces of a trait return a value, those in the
/// second a future, which is boxed.
macro_rules! methods {
    ($($of:ident
        { $($now:ident($($given:ident: $as:ty),*) -> $said:ty;)* }
        { $($later:ident($($name:ident: $type:ty),*) -> $answer:ty;)* }
    )*) => {
        trait ErasedStore: Debug + Send + Sync {
            $($(fn $now(&self, $($given: $as),*) -> $said;)*)*
            $($(fn $later(&self, $($name: $type),*) -> Boxed<'_, $answer>;)*)*
        }

        impl<St: Store> ErasedStore for St {
            $($(fn $now(&self, $($given: $as),*) -> $said {
                $of::$now(self, $($given),*)
            })*)*
            $($(fn $later(&self, $($name: $type),*) -> Boxed<'_, $answer> {
                Box::pin($of::$later(self, $($name),*))
            })*)*
        }

        $(impl $of for AnyStore {
            $(fn $now(&self, $($given: $as),*) -> $said {
                self.0.$now($($given),*)
            })*
            $(fn $later(&self, $($name: $type),*) -> impl Future<Output = Result<$answer, StoreError>> + Send {
                self.0.$later($($name),*)
            })*
        })*
    };
}

impl Sealed for AnyStore {}

methods! {
    Records {
        slots() -> &Arc<Slots>;
        is_exclusive() -> bool;
        recall(id: RecordId) -> Option<Record>;
        changed(id: RecordId) -> BoxFuture<'static, ()>;
        now() -> Timestamp;
    }
    {
        load(id: RecordId) -> Option<Record>;
        apply(id: RecordId, transition: Transition) -> Stepped;
        list(list: List, after: Option<Cursor>, limit: usize) -> Page;
        inspect(id: RecordId) -> Option<ListedRecord>;
        disputed_outcome(id: RecordId, fence: Fence) -> Option<Bytes>;
        sweep(limit: usize) -> usize;
        adopt(records: Vec<(RecordId, Record)>) -> Vec<Stepped>;
    }
    Store {
        name() -> &'static str;
        health() -> Health;
        gauges() -> Gauges;
    }
    {
        close() -> ();
    }
}
