//! The faults of a store, and the rule that must catch each.

macro_rules! faults {
    ($($rule:literal: $($fault:ident,)*;)*) => {
        /// A fault of a store.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Fault {
            Nothing,
            $($($fault,)*)*
        }

        /// Each fault, with the rule that must catch it.
        pub(super) const CAUGHT: &[(Fault, &str)] = &[$($((Fault::$fault, $rule),)*)*];
    };
}

// The seeded faults of the design that a store's caller can see are among them: `DisarmsTheRunByAQuestion`,
// `ResolvesUnderTheOldFence`, `CountsFencesPerRecord`, `NeedsAClaimToComplete`, `CompletesUnderAnyFence`.
faults! {
    "each_transition_does_what_the_protocol_says": ForgetsAttempts, ResolvesWhatRuns,;
    "a_refused_transition_changes_nothing": StampsWhatItRefuses, AnswersNothingWhenItRefuses,;
    "an_earlier_holder_changes_nothing": CompletesUnderAnyFence, ReleasesUnderAnyFence,;
    "an_ending_sent_again_gets_the_same_reply": RefusesEndingsSentAgain, ReplacesOutcomes,;
    "what_takes_an_operation_is_taken_once": SettlesAgain,;
    "a_late_outcome_is_recorded_until_somebody_took_over": ThrowsLateOutcomesAway, DisarmsTheRunByAQuestion,;
    "a_run_whose_claim_left_no_trace_ends_like_others": NeedsAClaimToComplete,;
    "one_of_a_thousand_claims_is_granted": LooksBeforeItClaims,;
    "an_interrupted_operation_is_taken_over_by_one": LooksBeforeItTakesOver,;
    "operations_at_once_do_not_mix": MixesABatch,;
    "outcomes_are_kept_to_the_byte": CutsOutcomesAtOneMebibyte, KeepsOutcomesAsText,;
    "what_a_record_says_is_kept": ForgetsOrigins, ForgetsPolicies, KeepsStatusesInAByte,;
    "ids_are_told_apart_by_every_byte": ComparesHalfOfTheId,;
    "fences_grow_whatever_frees_the_key": CountsFencesPerRecord, ResolvesUnderTheOldFence,;
    "a_record_past_its_expiry_is_absent": AnswersPastExpiry,;
    "retention_counts_from_the_end_of_the_run": CountsRetentionFromTheClaim,;
    "began_is_of_the_first_attempt_and_since_of_the_state": BeginsAnewAtEachAttempt, StampsAtAQuestion,;
    "a_record_outlives_the_question_about_it": LetsAQuestionOutliveItsRecord,;
    "an_answer_that_is_forgotten_leaves_the_fact": RefusesToForgetAnswers, StampsWhatIsLeftOfAnswers,;
    "a_sweep_takes_what_is_past_its_expiry_alone": SweepsMoreThanItsLimit, SweepsWhatIsInterrupted,;
    "interrupted_operations_are_listed_until_they_are_settled": ListsNoQuestions,;
    "the_list_is_paged_without_gaps_or_repeats": BeginsThePageAtThePlace, LeavesOutTies, ListsTheNewestFirst, ListsAllAtOnce,;
    "a_scan_has_each_record_once_in_the_order_of_ids": ScansFromTheStart, LeavesTheLastOut, ListsNoRuns, NamesASession,;
    "filters_select_by_what_records_say": ListsNoOrigins,;
    "a_process_has_its_own_runs_however_long_they_take": InterruptsItsOwnSlowRuns,;
    "nobody_takes_the_run_of_a_living_process": TakesOthersForDead, OwnsQuestionsThatAreOver,;
    "the_runs_of_a_process_that_is_gone_are_interrupted": TakesTheDeadForAlive,;
    "processes_see_each_others_steps": RemembersWhatItSaw,;
    "what_is_recalled_is_what_is_loaded": RecallsWhatItSaw,;
    "a_change_is_told_of_its_own_record_alone": TellsOfEveryChange,;
    "a_dropped_future_undoes_nothing": GivesUpWithItsFuture,;
    "a_record_of_another_store_is_taken_as_it_is": StampsWhatItAdopts, OverwritesWhatItAdopts,;
    "a_closed_store_takes_no_claim_and_loses_no_ending": TakesClaimsWhenClosed, LosesEndingsAtClose,;
    "what_was_answered_survives_a_reopening": ForgetsAtReopening,;
    "the_runs_of_an_earlier_opening_are_interrupted": ForgetsRunsAtReopening,;
    "limits_refuse_new_keys_and_no_ending": HasNoLimit, RefusesEndingsWhenFull,;
    "a_claim_that_is_refused_as_late_was_not_made": GrantsLateClaims,;
}
