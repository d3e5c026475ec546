//! All rules: by name, one after the other, and as tests.

use tower_idempotency_shared::Backend;

use super::subject::BackendSubject;
use crate::rule::ended;
use crate::suite::checks;

/// The list of the rules, for what is named.
#[doc(hidden)]
#[macro_export]
macro_rules! __backend_rules {
    ($to:ident $given:tt) => {
        $crate::__conformance! {
            $to $given
            table:
                a_write_is_done_where_what_it_expects_is_there
                a_released_row_is_not_absent
                an_expired_row_is_not_there
                an_expired_row_is_claimed_over;
            answers:
                a_refused_write_changes_nothing
                writes_of_one_put_do_not_depend_on_each_other
                rows_are_answered_in_the_order_asked
                a_put_replaces_all_that_it_names;
            fences:
                a_new_fence_is_above_clock_row_and_floor
                a_fence_is_kept_or_exactly_what_is_said
                fences_are_kept_to_the_digit;
            times:
                began_and_since_are_stamped_where_the_write_says_so
                until_and_expires_count_from_the_write
                a_kept_expiry_is_the_rows;
            clocks:
                a_row_is_judged_by_the_earliest_clock
                a_row_is_stamped_by_the_latest_clock_and_begins_by_the_earliest
                nothing_is_deleted_that_the_earliest_clock_keeps;
            bytes:
                state_is_kept_to_the_byte
                ids_and_tokens_are_kept_to_the_byte
                kinds_are_kept_even_unknown_ones;
            again:
                sent_again_is_done_whatever_is_expected
                sent_again_keeps_fence_and_stamps
                sent_again_is_a_write_that_counts_from_now
                sent_again_lowers_neither_until_nor_expires;
            late:
                a_write_held_back_is_refused_after_a_later_one
                a_write_held_back_counts_from_when_it_is_done
                an_earlier_write_sent_again_is_refused
                a_dropped_call_leaves_the_backend_usable;
            durable:
                a_row_that_a_call_shows_is_durable;
            crowd:
                one_of_a_thousand_claims_is_granted
                batches_in_opposite_order_both_end
                fences_grow_through_claims_expiries_and_sweeps;
            sweep:
                a_row_is_kept_until_its_grace_is_over
                rows_past_their_grace_are_deleted_in_slices;
            listing:
                sessions_are_the_rows_of_their_kind
                list_has_what_operators_see_to_and_nothing_else
                list_is_paged_without_gaps_or_repeats
                a_scan_has_each_operation_once_in_the_order_of_ids
                a_large_state_is_listed_by_its_beginning;
            surroundings:
                namespaces_do_not_meet
                processes_see_each_others_writes
                changes_do_not_end
                the_server_is_another_one_after_its_start_only
                the_guarantee_names_the_set_up;
        }
    };
}

/// Makes a test of each rule of the contract of a [`Backend`](tower_idempotency_shared::Backend).
///
/// It is given the path of an asynchronous function without arguments that makes the
/// [`BackendSubject`](crate::backend::BackendSubject), each time a new one with a database or a namespace of its own if
/// that is cheap. The function may give an `Option`: where it gives `None`, as there is no server for example, the rule
/// counts as passed; the function is the one to say so aloud.
///
/// The tests are `#[tokio::test]`s; another attribute can be written before the function. Put the macro into a module
/// of its own:
///
/// ```
/// mod contract {
///     # use tower_idempotency_conformance::{backend::BackendSubject, memory_backend::MemoryBackend};
///     # async fn subject() -> Option<BackendSubject<MemoryBackend>> { None }
///     tower_idempotency_conformance::backend_conformance!(#[tokio::test(flavor = "multi_thread")] subject);
/// }
/// ```
#[macro_export]
macro_rules! backend_conformance {
    (# $attribute:tt $make:path) => {
        $crate::__backend_rules! { tests { backend $attribute $make } }
    };
    ($make:path) => {
        $crate::backend_conformance! { #[::tokio::test] $make }
    };
}

checks!(__backend_rules, BackendSubject, Backend);
