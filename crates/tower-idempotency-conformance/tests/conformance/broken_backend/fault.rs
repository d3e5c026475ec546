//! The faults of a database, and the rule that must catch each.

macro_rules! faults {
    ($($rule:literal: $($fault:ident,)*;)*) => {
        /// A fault of a database.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Fault {
            Nothing,
            $($($fault,)*)*
        }

        /// Each fault, with the rule that must catch it.
        pub(crate) const CAUGHT: &[(Fault, &str)] = &[$($((Fault::$fault, $rule),)*)*];
    };
}

// The seeded faults of the design that a suite can see, each caught by the rule that is meant for it:
// `SweepsWithoutGrace`, `RecognisesAResendWithoutAWrite`, `CountsFencesPerRow` (it shrinks after deletion),
// `WritesFencesWithFourteenDigits`, `ComparesTheFence`, `DeletesReleasedRows`. A version that is counted per row can't
// be: tokens are the writer's.
faults! {
    "a_write_is_done_where_what_it_expects_is_there": IgnoresTheToken,;
    "a_released_row_is_not_absent": DeletesReleasedRows,;
    "an_expired_row_is_not_there": MatchesItsOwnTokenPastExpiry, ReadsRowsPastTheirExpiry,;
    "an_expired_row_is_claimed_over": LeavesExpiredRowsAlone, BeginsBeforeItsClaim,;
    "a_refused_write_changes_nothing": AnswersOnlyWhatItWrote, StampsWhatItRefuses,;
    "writes_of_one_put_do_not_depend_on_each_other": DoesAllWritesOrNone,;
    "rows_are_answered_in_the_order_asked": AnswersInTheOrderOfIds, AnswersEachIdOnce,;
    "a_put_replaces_all_that_it_names": KeepsASessionThatIsNone,;
    "a_new_fence_is_above_clock_row_and_floor": ForgetsTheFloor, CountsFencesFromOne,;
    "a_fence_is_kept_or_exactly_what_is_said": LowersFences, LowersFencesOfExpiredRows,;
    "fences_are_kept_to_the_digit": WritesFencesWithFourteenDigits, KeepsFencesAsDoubles,;
    "began_and_since_are_stamped_where_the_write_says_so": KeepsSince, StampsByAnotherClock,;
    "until_and_expires_count_from_the_write": CountsInSeconds,;
    "a_kept_expiry_is_the_rows": RenewsAKeptExpiry,;
    "a_row_is_judged_by_the_earliest_clock": JudgesByItsOwnClock, JudgesByTheGivenClock,;
    "a_row_is_stamped_by_the_latest_clock_and_begins_by_the_earliest": StampsByItsOwnClock, BeginsByItsOwnClock,;
    "nothing_is_deleted_that_the_earliest_clock_keeps": SweepsByItsOwnClock,;
    "state_is_kept_to_the_byte": KeepsStateAsText, CutsStateAtOneMebibyte,;
    "ids_and_tokens_are_kept_to_the_byte": ComparesHalfOfTheToken,;
    "kinds_are_kept_even_unknown_ones": TakesUnknownKindsForReleased,;
    "sent_again_is_done_whatever_is_expected": DoesNotKnowItsOwnToken,;
    "sent_again_keeps_fence_and_stamps": GivesAResendANewFence, StampsAResend,;
    "sent_again_is_a_write_that_counts_from_now": RecognisesAResendWithoutAWrite,;
    "sent_again_lowers_neither_until_nor_expires": LowersUntilOfAResend, LowersExpiresOfAResend,;
    "a_write_held_back_is_refused_after_a_later_one": LooksBeforeItWrites, ComparesTheFence,;
    "a_write_held_back_counts_from_when_it_is_done": CountsFromWhenItWasSent,;
    "an_earlier_write_sent_again_is_refused": KnowsOldTokens,;
    "a_dropped_call_leaves_the_backend_usable": IsStuckByADroppedCall,;
    "a_row_that_a_call_shows_is_durable": ShowsRowsBeforeTheyAreDurable, AnswersBeforeItIsDurable,;
    "one_of_a_thousand_claims_is_granted": LooksBeforeItClaims,;
    "batches_in_opposite_order_both_end": LocksInTheOrderOfWrites,;
    "fences_grow_through_claims_expiries_and_sweeps": ForgetsTheFenceOfExpiredRows,;
    "a_row_is_kept_until_its_grace_is_over": SweepsWithoutGrace,;
    "rows_past_their_grace_are_deleted_in_slices": CountsFencesPerRow, DeletesMoreThanTheLimit, DeletesNothing,;
    "sessions_are_the_rows_of_their_kind": GivesNoSessions, ForgetsSessionsPastTheirLease, TakesAnyRowForASession,;
    "list_has_what_operators_see_to_and_nothing_else":
        ListsNoDisputes, ListsNoRunsWithoutASession, ListsRunsByTheirBound, TakesAllSessionsForOver,;
    "list_is_paged_without_gaps_or_repeats": ListsByFinerTimes, BeginsThePageAtThePlace, ListsAllAtOnce,;
    "a_scan_has_each_operation_once_in_the_order_of_ids":
        ScansFromTheStart, ScansInItsOwnOrder, ScansMoreThanItsLimit, ScansSessions,;
    "a_large_state_is_listed_by_its_beginning": ListsNoLargeDisputes, ScansTheEndOfLargeStates,;
    "namespaces_do_not_meet": HasOneNamespace,;
    "processes_see_each_others_writes": ReadsFromAReplica,;
    "changes_do_not_end": EndsItsChanges,;
    "the_server_is_another_one_after_its_start_only": IsAnotherServerInEachAnswer, StaysTheSameServer,;
    "the_guarantee_names_the_set_up": IsSilentAboutItsSetUp,;
}
