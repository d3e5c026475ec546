//! All rules: by name, one after the other, and as tests.

use tower_idempotency_shared::RecordInTransaction;

use super::subject::TransactionSubject;
use crate::rule::ended;
use crate::suite::checks;

/// The list of the rules, for what is named.
#[doc(hidden)]
#[macro_export]
macro_rules! __transaction_rules {
    ($to:ident $given:tt) => {
        $crate::__conformance! {
            $to $given
            ends:
                a_committed_transaction_leaves_effect_and_record
                a_transaction_that_is_rolled_back_leaves_neither
                a_run_commits_once;
            rows:
                an_open_transaction_keeps_its_row
                a_run_that_was_taken_over_commits_nothing;
        }
    };
}

/// Makes a test of each rule of the contract of a
/// [`RecordInTransaction`](tower_idempotency_shared::RecordInTransaction).
///
/// It is given the path of an asynchronous function without arguments that makes the
/// [`TransactionSubject`](crate::transaction::TransactionSubject), each time a new one, as for
/// [`backend_conformance!`](crate::backend_conformance):
///
/// ```
/// mod contract {
///     # use tower_idempotency_conformance::{memory_backend::MemoryBackend, transaction::TransactionSubject};
///     # async fn subject() -> Option<TransactionSubject<MemoryBackend>> { None }
///     tower_idempotency_conformance::transaction_conformance!(subject);
/// }
/// ```
#[macro_export]
macro_rules! transaction_conformance {
    (# $attribute:tt $make:path) => {
        $crate::__transaction_rules! { tests { transaction $attribute $make } }
    };
    ($make:path) => {
        $crate::transaction_conformance! { #[::tokio::test] $make }
    };
}

checks!(__transaction_rules, TransactionSubject, RecordInTransaction);
