//! The faults that can happen at each step of a request, and what the system then does. Every step has a table with
//! every fault, and each row names the tests that show it.
//!
//! The faults are always in the same order:
//! - *message lost*: a message to the next party (the server, the store, the handler) does not arrive;
//! - *answer lost*: the message arrives, but its answer does not;
//! - *process killed*: the process ends by SIGKILL, by a panic that aborts, or by `exit`, in the middle of the step;
//! - *thread paused*: the process or a thread is paused for longer than any timeout (an embedded store has no leases
//!   that could run out meanwhile);
//! - *disk full*, *disk error*: a write or sync fails with ENOSPC or EIO;
//! - *power cut*: only what was synced is there after the restart;
//! - *store away*: the store is closed or poisoned, or it does not answer;
//! - *clock jump*: the wall clock is set;
//! - *duplicate*: the same request comes again during the step.
//!
//! "Refused" means that the client gets an answer that says so ([`problem`](mod@crate::problem)), and that nothing
//! runs. If a row names no test, there is none: it says *gap* and why. A test checks that every named test exists.
//!
//! <style>.docblock td > code { overflow-wrap: anywhere; }</style>
//!
//! # 1. The request arrives: key, body, fingerprint
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | nothing has happened, even if half of a body has arrived; the client sends the request again | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same`, `a_stream_that_is_reset_half_way_charges_nothing_though_its_beginning_is_a_valid_charge` |
//! | answer lost | the rejection is lost; a retry gets the same rejection. A rejection that is sent before the body has arrived does not break the connection | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same`, `trap_85_after_a_refusal_before_the_body_the_next_request_on_the_connection_is_answered` |
//! | process killed | nothing was claimed; the retry is a first request | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | a slow upload does not hold its key; a body of which nothing arrives for 30 s is refused | `trap_35_a_slow_upload_holds_no_key`, `a_body_of_which_nothing_comes_for_30_s_or_too_little_is_refused_and_a_slow_one_is_not` |
//! | disk full | the request does not touch the disk | `a_request_that_is_refused_for_its_own_sake_touches_no_store` |
//! | disk error | the request does not touch the disk | `a_request_that_is_refused_for_its_own_sake_touches_no_store` |
//! | power cut | the same as *process killed* | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | the store is not asked before the whole body has arrived | `trap_36_an_endless_body_is_refused_at_the_limit_before_any_claim` |
//! | clock jump | no clock is read | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart` |
//! | duplicate | each request reads its own body, and all bodies together stay within `max_buffered`; the requests meet at the slot, whether header or body has the key | `two_hundred_copies_at_once_charge_once`, `bodies_that_are_read_are_bounded_in_sum_with_a_quarter_for_small_ones`, `a_duplicate_waits_for_the_run_of_the_same_call`, `keys_of_header_and_body_that_differ_are_refused`, `a_body_in_which_a_key_cannot_be_looked_for_is_refused` |
//!
//! # 2. The key is looked up: slot, record, slot
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the look-up fails, and the claim, which is made under the slot, decides | `a_look_up_that_fails_is_made_good_by_the_claim` |
//! | answer lost | the look-up is given up after at most 2.5 s, and the claim decides | `a_look_up_that_never_ends_is_bounded_and_the_claim_decides` |
//! | process killed | nothing was claimed | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | the store is asked again under the slot, because the first run may have ended meanwhile | `trap_66_a_duplicate_that_comes_as_the_first_completes_does_not_run` |
//! | disk full | reads need no space | `on_a_full_disk_nothing_false_is_said_and_with_room_again_all_is_there` |
//! | disk error | the store is poisoned: what its memory holds is replayed, everything else is refused | `a_poisoned_store_answers_what_memory_knows_and_refuses_the_rest_until_it_is_opened_again` |
//! | power cut | a record that could be read but was not durable yet had not been shown to any client | `trap_71_a_record_that_can_be_seen_but_is_not_known_to_be_durable_is_not_replayed` |
//! | store away | the request is refused when it claims | `trap_56_a_store_that_is_away_refuses_before_the_handler` |
//! | clock jump | expiry is measured by the steady clock | `trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record` |
//! | duplicate | the duplicate meets the slot or the durable record | `in_every_order_there_is_one_run_and_nobody_waits_for_ever` |
//!
//! # 3. Claiming
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the request is refused; nothing ran | `trap_56_a_store_that_is_away_refuses_before_the_handler` |
//! | answer lost | the request is refused; nothing ran. The store may hold the claim, which then counts as an interrupted run, as after a restart. A store behind a network sends the claim again until it knows the answer | `a_claim_of_which_nobody_learns_whether_it_was_made_runs_nothing_and_is_not_mistaken_for_a_run`, `under_rerun_a_claim_of_which_nobody_learns_does_not_block_its_key` |
//! | process killed | after the restart a durable claim is an interrupted run, even if no handler had started; without a durable claim the key is new | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | the request is refused after 5 s. A claim that the store comes to later is not made; if the store had made it and only answered too late, it is given back | `trap_83_a_claim_to_which_the_store_comes_too_late_is_not_done`, `trap_68_a_claim_that_takes_too_long_is_given_back` |
//! | disk full | the claim is refused as `store-full` while less than `min_free_space` is left; on a full disk the store is poisoned and the claim refused; nothing ran | `below_the_mark_no_answer_is_given_that_is_not_recorded`, `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the store is poisoned and the claim refused; nothing ran. So it is if the directory was removed, renamed or replaced | `a_disk_that_fails_at_any_point_makes_nothing_false`, `a_store_whose_directory_is_taken_away_answers_no_new_key_and_says_why_without_a_request` |
//! | power cut | no handler starts before its claim is durable, if the policy needs a durable claim | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | the claim is refused; while the store is behind, it is refused at once as `overloaded`. With `fail_open`, if the store is away and nothing is known of the key, the request runs unprotected and is counted, and its end is recorded when the store is back | `while_the_writer_is_behind_new_keys_are_refused_at_once`, `fail_open_opens_nothing_that_is_overloaded`, `fail_open_runs_unprotected_while_the_store_is_away`, `what_fail_open_has_run_is_recorded_once_the_store_works_again` |
//! | clock jump | fences come from a counter, not from a clock | `trap_75_a_clock_that_was_set_back_across_a_restart_does_not_turn_time_back` |
//! | duplicate | the duplicate waits at the slot and never claims | `trap_01_of_many_requests_at_once_one_runs` |
//!
//! # 4. A duplicate waits for the run
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | there is no message: waiters get a notification within this process | `in_every_order_there_is_one_run_and_nobody_waits_for_ever` |
//! | answer lost | the waiter's client retries; the run is not affected | `trap_07_a_waiter_that_gives_up_leaves_the_claim_alone` |
//! | process killed | the same as for the run itself | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | the waiter gets `in-flight` when its timeout of 2 s is over: with 503 in Iceberg's profile, whose clients take a 409 for a failed commit | `a_duplicate_that_waited_two_seconds_is_told_in_flight`, `no_refusal_of_an_iceberg_commit_is_a_409` |
//! | disk full | the waiter gets the same answer as the client whose request runs | `trap_73_waiters_of_a_run_without_an_outcome_do_not_run_one_after_the_other` |
//! | disk error | the waiter gets the same answer as the client whose request runs | `trap_73_waiters_of_a_run_without_an_outcome_do_not_run_one_after_the_other` |
//! | power cut | waiters are answered only with what is durable | `trap_71_no_duplicate_is_answered_before_the_record_is_durable` |
//! | store away | waiters do not need the store | `trap_70_fail_open_opens_nothing_for_a_key_with_a_run_under_way` |
//! | clock jump | the timeout is measured by the steady clock | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart` |
//! | duplicate | at most 1,024 requests wait for one key, and 16,384 in all; any more get `in-flight` | `trap_08_at_most_1024_wait_for_one_run` |
//!
//! # 5. The handler runs
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the handler's own call is lost: it calls again with its derived key, or answers that it does not know, and its client's retry gets what the policy says | `a_derived_key_depends_on_the_operation_and_on_nothing_that_changes_between_attempts`, `trap_82_a_handler_can_say_that_it_does_not_know` |
//! | answer lost | the client is gone; the run goes on | `a_client_that_hangs_up_has_charged_once_and_its_retry_is_a_replay` |
//! | process killed | the operation is interrupted: its retry is refused, runs again, or the application is asked, as the policy says | `a_retry_after_a_crash_is_refused` |
//! | thread paused | after `max_run`, or a timeout inside the layer, the handler's future is dropped and the operation is interrupted | `trap_69_a_handler_that_hangs_is_dropped_after_max_run`, `the_guide_says_what_clients_see_of_layers_inside_and_outside` |
//! | disk full | the handler deals with its own errors; what it writes to its own trees is durable after `sync`, or `sync` returns an error | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the same as *disk full* | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | the same as *process killed* | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | the run notices it when it records the outcome | `trap_14_where_recording_fails_the_real_answer_is_given_and_the_claim_kept` |
//! | clock jump | `max_run` is measured by the steady clock; a running record never expires | `retention_starts_where_the_run_ends_and_a_running_record_never_expires` |
//! | duplicate | the duplicate waits; a sub-request that a handler sends with a key of its own is an exchange of its own | `a_duplicate_waits_for_the_answer_of_the_first`, `trap_80_a_sub_request_with_a_key_of_its_own_is_an_exchange_of_its_own` |
//!
//! # 6. Recording the outcome
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the write is tried again; if it still fails, the client gets the real answer, which is counted as unsaved and remembered in this process, within a bound, until its retention ends | `trap_14_where_recording_fails_the_real_answer_is_given_and_the_claim_kept`, `outcomes_that_cannot_be_recorded_are_bounded_and_nothing_runs_again`, `what_only_this_process_knows_ends_with_the_retention` |
//! | answer lost | the write is sent again, and the store gives the same answer as the first time | `trap_09_an_outcome_whose_answer_was_lost_is_known_for_its_own` |
//! | process killed | the record is there, or it is not; no client was answered; without a record the operation is interrupted | `trap_14_a_restart_before_the_record_was_written_refuses_and_never_reruns` |
//! | thread paused | the answer waits, and so do all duplicates | `trap_71_no_duplicate_is_answered_before_the_record_is_durable` |
//! | disk full | below `min_free_space` outcomes are still recorded as long as there is room; on a full disk the store is poisoned, and the client gets the real answer, which is unsaved | `below_the_mark_no_answer_is_given_that_is_not_recorded`, `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the store is poisoned, and the client gets the real answer, which is unsaved; a failed sync is not tried again. So it is if the directory was removed, renamed or replaced | `a_disk_that_fails_at_any_point_makes_nothing_false`, `what_is_written_to_a_directory_that_was_taken_away_is_not_said_to_be_recorded` |
//! | power cut | the record is whole or absent: digest, fence and chunks fit together, or the record is refused; every prefix of a step that may be recovered makes sense | `what_was_said_before_a_power_cut_holds_after_it`, `whatever_prefix_of_a_step_is_recovered_makes_sense_and_needs_no_repair` |
//! | store away | the same as *message lost* | `trap_14_where_recording_fails_the_real_answer_is_given_and_the_claim_kept` |
//! | clock jump | retention starts at the present time of the steady clock | `trap_02_retention_starts_when_the_run_completes` |
//! | duplicate | duplicates meet the slot until the record is durable | `trap_66_a_duplicate_that_comes_as_the_first_completes_does_not_run` |
//!
//! # 7. Effect and record in one transaction
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | nothing was done, and the handler gets an error that says so | `a_store_that_is_closed_while_runs_commit_answers_nobody_falsely` |
//! | answer lost | the transaction settles the run, even if its result is not awaited | `a_commit_that_nobody_awaits_is_a_commit_all_the_same` |
//! | process killed | effect and record are both there, or neither | `in_one_transaction_a_retry_after_a_crash_is_answered_with_the_one_charge` |
//! | thread paused | the run waits; after a minute in which the process ran the store is poisoned, and the outcome is unknown | `a_write_that_never_returns_shows_in_the_health_and_poisons_the_store_after_a_minute`, `a_time_in_which_the_process_was_stopped_is_not_one_in_which_a_write_has_not_returned` |
//! | disk full | the client gets 503 `outcome-unknown`, never the handler's answer; after a restart effect and record are both there, or neither | `a_commit_whose_write_is_refused_is_answered_that_nobody_knows_and_after_the_restart_it_is_known` |
//! | disk error | the same as *disk full* | `a_commit_whose_write_is_refused_is_answered_that_nobody_knows_and_after_the_restart_it_is_known` |
//! | power cut | effect and record are both there, or neither | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | nothing was done, and the handler gets an error that says so | `a_store_that_is_closed_while_runs_commit_answers_nobody_falsely` |
//! | clock jump | the same as for any record | `trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record` |
//! | duplicate | the transaction of a superseded run is aborted | `a_run_whose_operation_was_taken_from_it_commits_nothing` |
//!
//! # 8. The answer is sent
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the retry is a replay | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same` |
//! | answer lost | an answer is not answered, so nothing can be lost | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same` |
//! | process killed | the record was durable before the first byte was sent: the retry is a replay | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | the client retries, perhaps on another connection, and gets a replay | `a_server_that_was_stopped_and_goes_on_charges_each_key_once_and_says_the_same` |
//! | disk full | nothing more is written | `on_a_full_disk_nothing_false_is_said_and_with_room_again_all_is_there` |
//! | disk error | nothing more is written | `a_poisoned_store_answers_what_memory_knows_and_refuses_the_rest_until_it_is_opened_again` |
//! | power cut | the answer was sent after the sync: the retry is a replay | `one_after_the_other_every_answer_follows_its_sync` |
//! | store away | the store is not needed any more | `trap_13_no_byte_of_the_answer_is_sent_before_its_record_is_durable` |
//! | clock jump | no clock is read | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart` |
//! | duplicate | the duplicate is a replay | `a_charge_sent_twice_is_charged_once_and_answered_the_same` |
//!
//! # 9. A replay
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the next retry is a replay too | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same` |
//! | answer lost | the next retry is a replay too | `a_charge_over_a_broken_network_is_one_charge_and_every_retry_is_told_the_same` |
//! | process killed | the next retry is a replay too | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | the record may be swept meanwhile; an outcome is read whole, or read again, or refused. A disk that hangs does not delay what memory can answer | `trap_59_an_outcome_with_a_part_missing_or_altered_is_refused`, `trap_84_while_the_disk_hangs_all_that_needs_no_disk_goes_on_and_nothing_is_done_for_who_was_told_no` |
//! | disk full | reads need no space | `on_a_full_disk_nothing_false_is_said_and_with_room_again_all_is_there` |
//! | disk error | the store is poisoned: the replay comes from its memory or is refused; the request never runs | `a_poisoned_store_answers_what_memory_knows_and_refuses_the_rest_until_it_is_opened_again` |
//! | power cut | a damaged record is refused; the request never runs | `trap_59_an_outcome_with_a_part_missing_or_altered_is_refused` |
//! | store away | the request is refused; `fail_open` never runs an operation that this process remembers | `trap_70_fail_open_opens_nothing_for_a_key_with_a_run_under_way` |
//! | clock jump | if the clock is set forward across a restart, the record expires early, and the request runs. While a process runs, a jump ends no answer before `retention` | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart`, `a_wall_clock_that_jumps_ends_no_answer` |
//! | duplicate | every duplicate is a replay; between `retention` and `outcome_retention` it gets the status alone, and does not run | `two_hundred_copies_that_wait_all_get_the_charge`, `between_the_two_times_a_retry_gets_the_status_and_does_not_run` |
//!
//! # 10. The application is asked before a replay
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the question has no answer within 5 s: 503, and the retry may ask again | `a_question_that_panics_or_hangs_refuses_and_the_next_retry_may_get_the_answer` |
//! | answer lost | the same | `a_question_that_panics_or_hangs_refuses_and_the_next_retry_may_get_the_answer` |
//! | process killed | nothing was changed; the retry is asked about again | `a_replay_from_memory_is_given_refused_or_replaced_and_the_record_stays` |
//! | thread paused | the same as *message lost* | `a_question_that_panics_or_hangs_refuses_and_the_next_retry_may_get_the_answer` |
//! | disk full | nothing is written | `a_replay_from_memory_is_given_refused_or_replaced_and_the_record_stays` |
//! | disk error | nothing is written | `a_replay_from_memory_is_given_refused_or_replaced_and_the_record_stays` |
//! | power cut | nothing was changed | `a_replay_from_memory_is_given_refused_or_replaced_and_the_record_stays` |
//! | store away | the record was read before | `a_replay_from_memory_is_given_refused_or_replaced_and_the_record_stays` |
//! | clock jump | the bound is by the monotonic clock | `a_question_that_panics_or_hangs_refuses_and_the_next_retry_may_get_the_answer` |
//! | duplicate | each is asked about, those that waited for the run too | `a_request_that_waits_for_a_run_is_asked_about_too` |
//!
//! # 11. A client looks what became of its request, with a probe
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | nothing was done; the client looks again | `a_probe_in_memory_gets_what_a_retry_would_get_and_never_runs` |
//! | answer lost | nothing was changed; the client looks again | `a_probe_in_memory_gets_what_a_retry_would_get_and_never_runs` |
//! | process killed | nothing was changed | `a_probe_in_memory_gets_what_a_retry_would_get_and_never_runs` |
//! | thread paused | the probe is refused after 5 s, and keeps neither the service nor a place of a run | `a_probe_blocks_no_request_and_takes_no_place_of_a_run` |
//! | disk full | nothing is written | `a_probe_in_memory_gets_what_a_retry_would_get_and_never_runs` |
//! | disk error | nothing is written; what can't be read is refused | `a_probe_that_the_store_does_not_answer_says_nothing_of_the_operation` |
//! | power cut | nothing was changed | `a_probe_in_memory_gets_what_a_retry_would_get_and_never_runs` |
//! | store away | 503, which says nothing of the operation | `a_probe_that_the_store_does_not_answer_says_nothing_of_the_operation` |
//! | clock jump | expiry is measured by the steady clock | `trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record` |
//! | duplicate | a probe and a request meet at the slot: the probe gets 409 `in-flight` at once | `a_probe_in_memory_gets_what_a_retry_would_get_and_never_runs` |
//!
//! # 12. The application is asked about a run that was interrupted
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | without a new fence the request is refused, and the application is asked at the next retry | `a_question_that_the_store_fails_before_is_not_asked_and_a_later_retry_asks_it` |
//! | answer lost | the question times out, and the outcome is still unknown | `trap_74_a_verdict_after_its_timeout_counts_for_nothing` |
//! | process killed | the operation is still interrupted, and the application is asked again | `an_operation_whose_process_crashes_during_the_question_is_still_interrupted_and_asked_about_again` |
//! | thread paused | a reply that comes too late counts for nothing | `trap_74_what_was_said_to_an_earlier_question_changes_nothing_once_another_is_open` |
//! | disk full | the application's reply is not passed on, and it is asked again | `a_verdict_that_the_store_fails_to_record_is_told_to_nobody_and_asked_for_again` |
//! | disk error | the application's reply is not passed on, and it is asked again | `a_verdict_that_the_store_fails_to_record_is_told_to_nobody_and_asked_for_again` |
//! | power cut | the operation is still interrupted, or it is settled | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | the request is refused, and `fail_open` does not run it | `fail_open_never_runs_what_was_interrupted_because_nobody_could_be_asked` |
//! | clock jump | a question does not prolong the time that the record is kept | `questions_neither_prolong_the_time_an_operation_is_kept_nor_hide_when_it_was_interrupted` |
//! | duplicate | duplicates share one question | `trap_74_concurrent_retries_share_one_question_and_its_verdict` |
//!
//! # 13. Sweeping
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | the sweep sends no message, so nothing can be lost | *gap*: there is nothing to test |
//! | answer lost | the sweep awaits no answer | *gap*: there is nothing to test |
//! | process killed | whole steps were done, or none; the rest is swept later | `what_was_said_before_a_power_cut_holds_after_it` |
//! | thread paused | an expired record counts as absent, swept or not | `trap_10_a_record_past_its_retention_never_answers_swept_or_not` |
//! | disk full | the store is poisoned | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the store is poisoned; a record that cannot be read is not deleted | `a_disk_that_fails_at_any_point_makes_nothing_false`, `a_sweep_whose_read_fails_deletes_nothing` |
//! | power cut | whole steps were done, or none | `what_was_said_before_a_power_cut_holds_after_it`, `a_sweep_of_everything_is_cut_into_slices` |
//! | store away | the records are swept later | `after_close_everything_is_refused_and_the_directory_can_be_opened_again` |
//! | clock jump | the sweep uses the steady clock | `trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record` |
//! | duplicate | if a key was claimed again, the expiry of its old record does not sweep the new one | `trap_72_the_old_expiry_of_a_key_claimed_again_does_not_sweep_the_new_record` |
//!
//! # 14. The process starts and opens its store
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | opening sends no message, so nothing can be lost | *gap*: there is nothing to test |
//! | answer lost | opening awaits no answer | *gap*: there is nothing to test |
//! | process killed | the next start opens the store; the remains of a torn snapshot are removed | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | the caller waits; there is no store yet from which a request could be answered | *gap*: the types allow nothing else |
//! | disk full | opening returns an error that says what to do; the records are unchanged | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | opening returns an error that says what to do; the records are unchanged | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | the next start opens the store | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | if another process has the store open, opening returns an error that says so | `trap_60_a_second_opening_is_an_error_that_names_the_remedy` |
//! | clock jump | the store's time is never earlier than the latest that was seen; if the clock is set forward, records expire early | `trap_75_a_clock_that_was_set_back_across_a_restart_does_not_turn_time_back` |
//! | duplicate | the second opening returns an error | `trap_60_a_second_server_on_the_same_data_says_why_it_will_not_start` |
//!
//! # 15. An operator settles an interrupted operation
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | nothing was done; the operation is still listed | `what_was_interrupted_is_settled_by_who_knows` |
//! | answer lost | the request to the store is sent again and recognised as the same; or the key is refused until the store has answered | `settling_that_was_never_acknowledged_refuses_the_key_until_it_is` |
//! | process killed | the operation is settled, or still listed | `what_was_said_before_a_power_cut_holds_after_it` |
//! | thread paused | after 5 s the result is uncertain; the key is refused until the store has answered | `settling_that_the_store_does_not_answer_holds_nobody_up_for_long` |
//! | disk full | the store is poisoned; after the restart the operation is settled, or still listed | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | disk error | the store is poisoned; after the restart the operation is settled, or still listed | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | the operation is settled, or still listed | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | the operator gets an error, and nothing is done; if only this process knows how the operation ended, the error says so | `after_close_everything_is_refused_and_the_directory_can_be_opened_again`, `settling_by_hand_what_this_process_knows_says_so` |
//! | clock jump | retention starts at the present time of the steady clock | `trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record` |
//! | duplicate | the fence in the list decides: the second attempt changes nothing; a sweep in the same batch leaves the operator's outcome whole. An answer that was forgotten stays so: a late copy of its run's end changes nothing | `what_was_interrupted_is_settled_by_who_knows`, `trap_87_a_sweep_in_one_batch_with_an_operators_answer_leaves_the_answer_whole`, `the_answer_of_a_completed_operation_is_forgotten_and_the_fact_is_not` |
//!
//! # 16. The process shuts down: drain, close
//! | fault | what happens | test |
//! |---|---|---|
//! | message lost | new keys are refused; keys that have a record are answered | `drain_refuses_new_ids_gives_outcomes_and_says_how_many_runs_are_left`, `under_load_all_that_was_answered_is_recorded_and_no_run_is_cut` |
//! | answer lost | drain waits for a run even if its client is gone | `sigterm_lets_a_charge_finish_whose_client_is_gone` |
//! | process killed | the same as at any other time | `a_server_that_is_killed_at_random_keeps_its_word` |
//! | thread paused | drain waits until its deadline; runs that are left are interrupted; connections that make no progress are cut | `trap_17_drain_waits_for_detached_runs_and_says_how_many_are_left`, `trap_91_sigterm_ends_the_server_cleanly_however_many_clients_stand_still`, `under_load_clients_that_stall_do_not_keep_a_server_from_ending` |
//! | disk full | closing returns an error; the records are unchanged; a log that cannot be written does not end the process | `a_disk_that_fails_at_any_point_makes_nothing_false`, `trap_90_nothing_that_is_printed_ends_the_server` |
//! | disk error | closing returns an error; the records are unchanged; a log that cannot be written does not end the process | `a_disk_that_fails_at_any_point_makes_nothing_false` |
//! | power cut | everything that was answered was durable before | `what_was_said_before_a_power_cut_holds_after_it` |
//! | store away | a run whose transaction the closed store refuses gets that error; drain waits for outcomes that are still being recorded, and counts what is left | `a_store_that_is_closed_while_runs_commit_answers_nobody_falsely`, `trap_88_drain_waits_for_outcomes_that_the_store_is_still_being_told` |
//! | clock jump | deadlines are measured by the steady clock | `a_clock_that_jumps_is_noticed_only_forward_and_only_across_a_restart` |
//! | duplicate | duplicates are refused, or answered from the record; they never run | `while_draining_nobody_is_asked_and_nothing_is_lost` |
