//! What could go wrong at each step of a request, and what the system then does: every step × every fault, with the test
//! that shows it.
//!
//! The faults, always in the same order:
//! - *message lost*: what was sent to the next party (to the server, the store, the handler) does not arrive;
//! - *answer lost*: it arrived, and its answer does not;
//! - *process killed*: SIGKILL, a panic that aborts, or `exit`, in the middle of the step;
//! - *thread paused*: the process or a thread stands still for longer than anybody waits (an embedded store has no leases
//!   that could run out meanwhile);
//! - *disk full*, *disk error*: a write or sync fails with ENOSPC or EIO;
//! - *power cut*: only what was synced is there afterwards;
//! - *store away*: closed, poisoned, or it does not answer;
//! - *clock jump*: the wall clock is set;
//! - *duplicate*: the same request comes again during the step.
//!
//! "Refused" is an answer that says so ([`problem`](mod@crate::problem)); nothing runs then. Where a cell names no test, there is
//! none: it says *gap* and why. That every named test exists is a test, too.
//!
//! # 1. The request arrives: key, body, fingerprint
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | nothing has happened, though half of a body has come; the client sends it again | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same`, `a_stream_that_is_reset_half_way_charges_nothing_though_its_beginning_is_a_valid_charge` |
//! | answer lost | the refusal is lost, and a retry is refused alike; a refusal before the body comes does not break the connection | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same`, `trap_85_after_a_refusal_before_the_body_the_next_request_on_the_connection_is_answered` |
//! | process killed | nothing was claimed; the retry is a first request | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | a slow upload holds no key; one of which nothing comes for 30 s is refused | `trap_35_a_slow_upload_holds_no_key`, `a_body_of_which_nothing_comes_for_30_s_or_too_little_is_refused_and_a_slow_one_is_not` |
//! | disk full | the disk is not touched | `a_request_that_is_refused_for_its_own_sake_touches_no_store` |
//! | disk error | the disk is not touched | `a_request_that_is_refused_for_its_own_sake_touches_no_store` |
//! | power cut | as killed | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | the store is not asked before the body is there | `trap_36_an_endless_body_is_refused_at_the_limit_before_any_claim` |
//! | clock jump | no time is read | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart` |
//! | duplicate | each reads its own body, all together within `max_buffered`; they meet at the slot | `two_hundred_copies_at_once_charge_once`, `bodies_that_are_read_are_bounded_in_sum_with_a_quarter_for_small_ones` |
//!
//! # 2. Looking: slot, record, slot
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the claim decides, under the slot | `a_look_up_that_fails_is_made_good_by_the_claim` |
//! | answer lost | as above, after at most 2.5 s | `a_look_up_that_never_ends_is_bounded_and_the_claim_decides` |
//! | process killed | nothing was claimed | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | looked at again under the slot: the first run may have ended meanwhile | `trap_66_a_duplicate_that_comes_as_the_first_completes_does_not_run` |
//! | disk full | reads need no space | `on_a_full_disk_nothing_false_is_said_and_with_room_again_all_is_there` |
//! | disk error | poisoned: refused; what memory holds is replayed | `a_poisoned_store_answers_what_memory_knows_and_refuses_the_rest_until_it_is_opened_again` |
//! | power cut | what was seen and not yet durable was told to nobody | `trap_71_a_record_that_can_be_seen_but_is_not_known_to_be_durable_is_not_replayed` |
//! | store away | refused at the claim | `trap_56_a_store_that_is_away_refuses_before_the_handler` |
//! | clock jump | expiry goes by the steady clock | `trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record` |
//! | duplicate | meets the slot, or the durable record | `in_every_order_there_is_one_run_and_nobody_waits_for_ever` |
//!
//! # 3. Claiming
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | refused; nothing ran | `a_store_that_is_away_is_a_refusal_and_nothing_runs` |
//! | answer lost | refused; nothing ran; the store may hold the claim, which is then an interrupted run, as after a restart. A store behind a network sends it again until it knows | `a_claim_of_which_nobody_learns_whether_it_was_made_runs_nothing_and_is_not_mistaken_for_a_run`, `under_rerun_a_claim_of_which_nobody_learns_does_not_block_its_key` |
//! | process killed | a durable claim is an interrupted run after the restart, though nothing may have run; without one the key is new | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | after 5 s refused; the store doesn't do a claim that it comes to later, and what it did and said late is given back | `trap_83_a_claim_to_which_the_store_comes_too_late_is_not_done`, `trap_68_a_claim_that_takes_too_long_is_given_back` |
//! | disk full | refused as `store-full` while there is less left than `min_free_space`; on a full disk the store is poisoned, the claim refused; nothing ran | `below_the_mark_no_answer_is_given_that_is_not_recorded`, `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the same | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | no handler starts before its claim is durable, where the policy needs it | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | refused, or, while it is behind, refused at once as `overloaded`; with `fail_open`, if it is away and nothing known of the key, run unprotected, counted | `while_the_writer_is_behind_new_keys_are_refused_at_once`, `fail_open_opens_nothing_that_is_overloaded`, `fail_open_runs_unprotected_while_the_store_is_away` |
//! | clock jump | fences come from a counter, not from a clock | `a_fence_grows_whatever_was_released_swept_or_expired` |
//! | duplicate | waits at the slot, never claims | `trap_01_of_many_requests_at_once_one_runs` |
//!
//! # 4. Waiting for another's run
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | no message: one notification, in this process | `in_every_order_there_is_one_run_and_nobody_waits_for_ever` |
//! | answer lost | the waiter's client retries; the run is not concerned | `trap_07_a_waiter_that_gives_up_leaves_the_claim_alone` |
//! | process killed | as for the run | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | `in-flight` after its patience, 2 s | `a_duplicate_that_waited_two_seconds_is_told_in_flight` |
//! | disk full | told as the run's own requester | `waiters_of_an_interrupted_run_are_told_outcome_unknown` |
//! | disk error | the same | `waiters_of_an_interrupted_run_are_told_outcome_unknown` |
//! | power cut | told only what is durable | `trap_71_no_duplicate_is_answered_before_the_record_is_durable` |
//! | store away | waiters need no store | `fail_open_never_runs_beside_a_run_that_is_under_way` |
//! | clock jump | patience goes by the steady clock | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart` |
//! | duplicate | at most 1,024 wait for a key, 16,384 in all; then `in-flight` | `trap_08_at_most_1024_wait_for_one_run` |
//!
//! # 5. The handler runs
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the handler asks again under its derived key, or answers that it does not know, and its retry gets what the policy says | `a_derived_key_depends_on_the_step_and_on_nothing_that_changes_between_attempts`, `trap_82_a_handler_can_say_that_it_does_not_know` |
//! | answer lost | the client is gone: the run goes on | `a_client_that_hangs_up_has_charged_once_and_its_retry_is_a_replay` |
//! | process killed | interrupted: refused, run again or asked about, as the policy says | `a_retry_after_a_crash_is_refused` |
//! | thread paused | past `max_run`, or a timeout inside, its future is dropped: interrupted | `trap_69_a_handler_that_hangs_is_dropped_after_max_run`, `the_guide_says_what_clients_see_of_layers_inside_and_outside` |
//! | disk full | the handler's own affair; what it writes to its own trees is durable after `sync`, or an error | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the same | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | as killed | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | noticed when the outcome is recorded | `trap_14_where_recording_fails_the_real_answer_is_given_and_the_claim_kept` |
//! | clock jump | `max_run` goes by the steady clock; a running record never expires | `retention_starts_where_the_run_ends_and_a_running_record_never_expires` |
//! | duplicate | waits; one that another handler sends under a key of its own is a duplicate too | `a_duplicate_waits_for_the_answer_of_the_first`, `trap_80_a_sub_request_with_a_key_of_its_own_is_an_exchange_of_its_own` |
//!
//! # 6. Recording the outcome
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | tried again; then the real answer, unrecorded and counted, and remembered in this process, within a bound, until its retention ends | `an_answer_that_could_not_be_recorded_is_given_and_remembered_until_a_restart`, `outcomes_that_cannot_be_recorded_are_bounded_and_nothing_runs_again`, `what_only_this_process_knows_ends_with_the_retention` |
//! | answer lost | sent again, and answered as the first time | `an_outcome_whose_acknowledgement_was_lost_is_recorded_once` |
//! | process killed | the record is there or not; nobody was answered; interrupted, where it is not | `trap_14_a_restart_before_the_record_was_written_refuses_and_never_reruns` |
//! | thread paused | the answer waits; nobody else is answered | `trap_71_no_duplicate_is_answered_before_the_record_is_durable` |
//! | disk full | below `min_free_space` it is still recorded, as far as there is room; on a full disk the store is poisoned; the real answer, unrecorded | `below_the_mark_no_answer_is_given_that_is_not_recorded`, `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the same; the sync is not tried again | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | the record is whole or absent: digest, fence and chunks fit, or it is refused; whatever prefix of a step is there makes sense | `what_was_said_before_a_power_cut_holds_after_it`, `whatever_prefix_of_a_step_is_recovered_makes_sense_and_needs_no_repair` |
//! | store away | as *message lost* | `trap_14_where_recording_fails_the_real_answer_is_given_and_the_claim_kept` |
//! | clock jump | retention starts at the steady clock's now | `trap_02_retention_starts_when_the_run_completes` |
//! | duplicate | meets the slot until the record is durable | `trap_66_a_duplicate_that_comes_as_the_first_completes_does_not_run` |
//!
//! # 7. Effect and record in one transaction
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | nothing was done; the handler is told | `a_store_that_is_closed_while_runs_commit_answers_nobody_falsely` |
//! | answer lost | the run is settled by the transaction, whoever is there to hear of it | `a_commit_that_nobody_awaits_is_a_commit_all_the_same` |
//! | process killed | both are there, or neither | `in_one_transaction_a_retry_after_a_crash_is_answered_with_the_one_charge` |
//! | thread paused | waited for; a minute later the store is poisoned, and the outcome unknown | `a_write_that_never_returns_shows_in_the_health_and_poisons_the_store_after_a_minute` |
//! | disk full | 503 `outcome-unknown`, never the handler's answer; after a restart both are there, or neither | `a_commit_whose_write_is_refused_is_answered_that_nobody_knows_and_after_the_restart_it_is_known` |
//! | disk error | the same | `a_commit_whose_write_is_refused_is_answered_that_nobody_knows_and_after_the_restart_it_is_known` |
//! | power cut | both are there, or neither | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | nothing was done; the handler is told | `a_store_that_is_closed_while_runs_commit_answers_nobody_falsely` |
//! | clock jump | as for any record | `trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record` |
//! | duplicate | a superseded run's transaction is aborted | `a_run_whose_operation_was_taken_from_it_commits_nothing` |
//!
//! # 8. The answer is sent
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the retry is a replay | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same` |
//! | answer lost | there is none to an answer | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same` |
//! | process killed | the record was durable before the first byte: the retry is a replay | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | the client retries elsewhere: a replay | `a_server_that_was_stopped_and_goes_on_charges_each_key_once_and_says_the_same` |
//! | disk full | nothing more is written | `on_a_full_disk_nothing_false_is_said_and_with_room_again_all_is_there` |
//! | disk error | nothing more is written | `a_poisoned_store_answers_what_memory_knows_and_refuses_the_rest_until_it_is_opened_again` |
//! | power cut | the answer came after the sync: the retry is a replay | `one_after_the_other_every_answer_follows_its_sync` |
//! | store away | nothing more is asked of it | `trap_13_no_byte_of_the_answer_is_sent_before_its_record_is_durable` |
//! | clock jump | no time is read | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart` |
//! | duplicate | a replay | `a_charge_sent_twice_is_charged_once_and_answered_the_same` |
//!
//! # 9. A replay
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the next retry is a replay too | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same` |
//! | answer lost | the next retry is a replay too | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same` |
//! | process killed | the next retry is a replay too | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | the record may be swept meanwhile; what was read is whole, or read again, or refused. A disk that hangs holds up nothing that memory can answer | `trap_59_an_outcome_with_a_part_missing_or_altered_is_refused`, `trap_84_while_the_disk_hangs_all_that_needs_no_disk_goes_on_and_nothing_is_done_for_who_was_told_no` |
//! | disk full | reads need no space | `on_a_full_disk_nothing_false_is_said_and_with_room_again_all_is_there` |
//! | disk error | poisoned: from memory, or refused; never run | `a_poisoned_store_answers_what_memory_knows_and_refuses_the_rest_until_it_is_opened_again` |
//! | power cut | a damaged record is refused, never run | `trap_59_an_outcome_with_a_part_missing_or_altered_is_refused` |
//! | store away | refused; never opened by `fail_open` for what this process remembers | `fail_open_never_runs_what_this_process_remembers` |
//! | clock jump | forward across a restart: the record expires early, and the request runs | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart` |
//! | duplicate | each is a replay | `two_hundred_copies_that_wait_all_get_the_charge` |
//!
//! # 10. The application is asked about a run that was interrupted
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | no new fence: refused, and asked by the next retry | `a_question_that_the_store_fails_before_is_not_asked_and_a_later_retry_asks_it` |
//! | answer lost | its timeout: still unknown | `trap_74_a_verdict_after_its_time_out_counts_for_nothing` |
//! | process killed | still interrupted, and asked again | `an_operation_whose_process_crashes_during_the_question_is_still_interrupted_and_asked_about_again` |
//! | thread paused | what it says late counts for nothing | `trap_74_what_was_said_to_an_earlier_question_changes_nothing_once_another_is_open` |
//! | disk full | the verdict is told to nobody; asked again | `a_verdict_that_the_store_fails_to_record_is_told_to_nobody_and_asked_for_again` |
//! | disk error | the same | `a_verdict_that_the_store_fails_to_record_is_told_to_nobody_and_asked_for_again` |
//! | power cut | still interrupted, or settled | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | refused; `fail_open` does not run it | `fail_open_never_runs_what_was_cut_short_because_nobody_could_be_asked` |
//! | clock jump | questions don't prolong the time it is kept | `questions_neither_prolong_the_time_an_operation_is_kept_nor_hide_when_it_was_cut_short` |
//! | duplicate | shares the question | `trap_74_concurrent_retries_share_one_question_and_its_verdict` |
//!
//! # 11. Sweeping
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | nobody is asked, so nothing can be lost | *gap*: nothing to show |
//! | answer lost | nobody answers | *gap*: nothing to show |
//! | process killed | whole steps were done, or none; the rest later | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | an expired record is absent, swept or not | `trap_10_a_record_past_its_retention_never_answers_swept_or_not` |
//! | disk full | the store is poisoned | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the same; what can't be read is not deleted | `a_disk_that_fails_at_any_point_makes_nothing_false`, `a_sweep_whose_read_fails_deletes_nothing` |
//! | power cut | whole steps, or none | `what_was_said_before_a_power_cut_holds_after_it`, `a_sweep_of_everything_is_cut_into_slices` |
//! | store away | later | `after_close_everything_is_refused_and_the_directory_can_be_opened_again` |
//! | clock jump | sweeping goes by the steady clock | `trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record` |
//! | duplicate | a key claimed anew is not swept for its old record's sake | `trap_72_the_old_expiry_of_a_key_claimed_again_does_not_sweep_the_new_record` |
//!
//! # 12. The process starts and opens its store
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | nobody is asked, so nothing can be lost | *gap*: nothing to show |
//! | answer lost | nobody answers | *gap*: nothing to show |
//! | process killed | the next start opens it; the remains of a torn snapshot are removed | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | who opens the store waits; there is nothing to serve anybody from before | *gap*: the types leave nothing else |
//! | disk full | an error that says what to do; the records are as they were | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the same | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | the next start opens it | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | another process has it open: an error that says so | `trap_60_a_second_opening_is_an_error_that_names_the_remedy` |
//! | clock jump | time is never earlier than the latest seen; forward expires early | `trap_75_a_clock_that_was_set_back_across_a_restart_does_not_turn_time_back` |
//! | duplicate | the second opening is an error | `trap_60_a_second_server_on_the_same_data_says_why_it_will_not_start` |
//!
//! # 13. An operator settles what was interrupted
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | nothing is done; it is still listed | `an_interrupted_operation_is_listed_until_somebody_settles_it` |
//! | answer lost | sent again, and known for our own; or the key is refused until the store has answered | `settling_that_was_never_acknowledged_refuses_the_key_until_it_is` |
//! | process killed | settled, or still listed | `what_was_said_before_a_power_cut_holds_after_it` |
//! | thread paused | after 5 s uncertain; the key is refused until the store has answered | `settling_that_the_store_does_not_answer_holds_nobody_up_for_long` |
//! | disk full | the store is poisoned; settled after the restart, or still listed | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the same | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | settled, or still listed | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | an error; nothing is done; where this process knows what the store doesn't, it says so | `after_close_everything_is_refused_and_the_directory_can_be_opened_again`, `settling_by_hand_what_this_process_knows_says_so` |
//! | clock jump | its retention starts at the steady clock's now | `trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record` |
//! | duplicate | the fence of the list decides: the second changes nothing; a sweep in one batch with it leaves it whole | `what_was_cut_short_is_settled_by_who_knows`, `trap_87_a_sweep_in_one_batch_with_an_operators_answer_leaves_the_answer_whole` |
//!
//! # 14. The process shuts down: drain, close
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | new keys are refused; what is there is answered | `drain_refuses_new_ids_gives_outcomes_and_says_how_many_runs_are_left` |
//! | answer lost | the run whose client is gone is waited for | `sigterm_lets_a_charge_finish_whose_client_is_gone` |
//! | process killed | as at any other time | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | waited for until the deadline; what is left is interrupted; connections that stand still are cut | `trap_17_drain_waits_for_detached_runs_and_says_how_many_are_left`, `trap_91_sigterm_ends_the_server_cleanly_however_many_clients_stand_still` |
//! | disk full | closing says so; the records are as they were; a log that can't be written ends nothing | `a_disk_that_fails_at_any_point_makes_nothing_false`, `trap_90_nothing_that_is_printed_ends_the_server` |
//! | disk error | the same | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | all that was answered was durable before | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | runs whose transactions a closed store no longer takes are told so; what the store is still being told is waited for, and counted | `a_store_that_is_closed_while_runs_commit_answers_nobody_falsely`, `trap_88_drain_waits_for_outcomes_that_the_store_is_still_being_told` |
//! | clock jump | deadlines go by the steady clock | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart` |
//! | duplicate | refused, or answered from the record; never run | `while_draining_nobody_is_asked_and_nothing_is_lost` |
