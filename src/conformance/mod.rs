//! The contract of a [`Backend`](crate::store::shared::Backend) as tests, for whoever puts a database behind the trait
//! (feature `conformance`).
//!
//! Say how a [`Subject`] is made, and [`backend_conformance!`](crate::backend_conformance) makes a test of each rule:
//!
//! ```
//! use tower_idempotency::conformance::Subject;
//! use tower_idempotency::store::shared::memory_backend::MemoryBackend;
//!
//! // In a test of your own this opens your database.
//! async fn subject() -> Subject<MemoryBackend> {
//!     let backend = MemoryBackend::new();
//!     let (another_process, another_namespace) = (backend.beside(), backend.namespace("another"));
//!     Subject::new(backend).beside(another_process).another_namespace(another_namespace)
//! }
//!
//! tower_idempotency::backend_conformance!(subject);
//! ```
//!
//! Or call [`backend`], which checks one rule after the other, or a single rule by its function.
//!
//! A rule that does not hold panics. The message names the rule, says what was found, and what to do.
//!
//! - Each rule gets a subject of its own, and ids of its own. Rows that others leave in the database do no harm.
//! - Nothing is timed. What has to expire expires within milliseconds, and is polled for. No rule waits for
//!   [`GRACE`](crate::store::shared::GRACE): that rows past it are deleted is shown only where the subject has a
//!   [clock](Subject::clock) to be moved.
//! - What needs something that the subject has not got is left out, and says so on standard error.
//! - What no suite can see from outside is not here: whether an answered write survives a power cut or a failover, and
//!   whether a put locks rows in the order of their ids when no other put comes at the same moment.
//!
//! Let tokio's clock run: a paused one would end the limits of time before a database answers.

// What is where:
// - `subject.rs`: what a rule is tried on; `suite.rs`: the list of the rules, and the macro.
// - `rule.rs`: what each rule is written with: calls that must succeed, and how it fails; `sample.rs`: writes to try.
// - `table.rs`, `answers.rs`: when a write is done, and what is answered.
// - `fences.rs`, `times.rs`, `leases.rs`, `bytes.rs`: what stands in a row then.
// - `again.rs`, `late.rs`, `crowd.rs`: writes that are sent twice, late, and many at once.
// - `sweep.rs`, `listing.rs`, `surroundings.rs`: the other methods; other processes, namespaces and servers.

mod again;
mod answers;
mod bytes;
mod crowd;
mod fences;
mod late;
mod leases;
mod listing;
mod rule;
mod sample;
mod subject;
mod suite;
mod surroundings;
mod sweep;
mod table;
mod times;

pub use again::{
    sent_again_is_a_write_that_counts_from_now, sent_again_is_done_whatever_is_expected,
    sent_again_keeps_fence_and_stamps,
};
pub use answers::{
    a_put_replaces_all_that_it_names, a_refused_write_changes_nothing, rows_are_answered_in_the_order_asked,
    writes_of_one_put_do_not_depend_on_each_other,
};
pub use bytes::{ids_and_tokens_are_kept_to_the_byte, kinds_are_kept_even_unknown_ones, state_is_kept_to_the_byte};
pub use crowd::{
    batches_in_opposite_order_both_end, fences_grow_through_claims_expiries_and_sweeps,
    one_of_a_thousand_claims_is_granted,
};
pub use fences::{
    a_fence_is_kept_or_exactly_what_is_said, a_new_fence_is_above_clock_row_and_floor, fences_are_kept_to_the_digit,
};
pub use late::{
    a_dropped_call_leaves_the_backend_usable, a_write_held_back_counts_from_when_it_is_done,
    a_write_held_back_is_refused_after_a_later_one, an_earlier_write_sent_again_is_refused,
};
pub use leases::{
    nothing_but_a_live_session_gives_a_lease, the_lease_is_read_in_the_same_step, the_lease_is_that_of_the_session,
};
pub use listing::{list_has_what_operators_see_to_and_nothing_else, list_is_paged_without_gaps_or_repeats};
pub use subject::Subject;
pub use suite::{RULES, backend, rule};
#[doc(hidden)]
pub use suite::{ended, made};
pub use surroundings::{
    changes_do_not_end, namespaces_do_not_meet, processes_see_each_others_writes, the_guarantee_names_the_set_up,
    the_server_is_another_one_after_its_start_only,
};
pub use sweep::{a_row_is_kept_until_its_grace_is_over, rows_past_their_grace_are_deleted_in_slices};
pub use table::{
    a_released_row_is_not_absent, a_write_is_done_where_what_it_expects_is_there, an_expired_row_is_claimed_over,
    an_expired_row_is_not_there,
};
pub use times::{
    a_kept_expiry_is_the_rows, began_and_since_are_stamped_by_the_database, until_and_expires_count_from_the_write,
};
