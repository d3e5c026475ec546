//! All rules: by name, one after the other, and as tests.

use tower_idempotency::store::Store;

use super::subject::StoreSubject;
use crate::rule::ended;
use crate::suite::checks;

/// The list of the rules, for what is named.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_rules {
    ($to:ident $given:tt) => {
        $crate::__conformance! {
            $to $given
            table:
                each_transition_does_what_the_protocol_says
                a_refused_transition_changes_nothing
                an_earlier_holder_changes_nothing;
            again:
                an_ending_sent_again_gets_the_same_reply
                what_takes_an_operation_is_taken_once;
            late:
                a_late_outcome_is_recorded_until_somebody_took_over
                a_run_whose_claim_left_no_trace_ends_like_others;
            crowd:
                one_of_a_thousand_claims_is_granted
                an_interrupted_operation_is_taken_over_by_one
                operations_at_once_do_not_mix;
            bytes:
                outcomes_are_kept_to_the_byte
                what_a_record_says_is_kept
                ids_are_told_apart_by_every_byte;
            fences:
                fences_grow_whatever_frees_the_key;
            times:
                a_record_past_its_expiry_is_absent
                retention_counts_from_the_end_of_the_run
                began_is_of_the_first_attempt_and_since_of_the_state
                a_record_outlives_the_question_about_it
                an_answer_that_is_forgotten_leaves_the_fact;
            sweep:
                a_sweep_takes_what_is_past_its_expiry_alone;
            listing:
                interrupted_operations_are_listed_until_they_are_settled
                the_list_is_paged_without_gaps_or_repeats
                a_scan_has_each_record_once_in_the_order_of_ids
                filters_select_by_what_records_say;
            owners:
                a_process_has_its_own_runs_however_long_they_take
                nobody_takes_the_run_of_a_living_process
                the_runs_of_a_process_that_is_gone_are_interrupted
                processes_see_each_others_steps;
            hints:
                what_is_recalled_is_what_is_loaded
                a_change_is_told_of_its_own_record_alone;
            drops:
                a_dropped_future_undoes_nothing;
            adoption:
                a_record_of_another_store_is_taken_as_it_is;
            closing:
                a_closed_store_takes_no_claim_and_loses_no_ending
                what_was_answered_survives_a_reopening
                the_runs_of_an_earlier_opening_are_interrupted;
            limits:
                limits_refuse_new_keys_and_no_ending
                a_claim_that_is_refused_as_late_was_not_made;
        }
    };
}

/// Makes a test of each rule of the contract of a [`Store`](tower_idempotency::store::Store).
///
/// It is given the path of an asynchronous function without arguments that makes the
/// [`StoreSubject`](crate::store::StoreSubject), each time a new one, as for
/// [`backend_conformance!`](crate::backend_conformance):
///
/// ```
/// mod contract {
///     # use tower_idempotency::MemoryStore;
///     # use tower_idempotency_conformance::store::StoreSubject;
///     async fn subject() -> StoreSubject<MemoryStore> {
///         StoreSubject::new(MemoryStore::new())
///     }
///
///     tower_idempotency_conformance::store_conformance!(subject);
/// }
/// ```
#[macro_export]
macro_rules! store_conformance {
    (# $attribute:tt $make:path) => {
        $crate::__store_rules! { tests { store $attribute $make } }
    };
    ($make:path) => {
        $crate::store_conformance! { #[::tokio::test] $make }
    };
}

checks!(__store_rules, StoreSubject, Store);
