"""Which test puts which fault: rows F1 to F26 of docs/reliability.md, which `make test-faults` runs and writes."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """What is done, what is promised, and the tests that do it.

    Attributes:
        cluster: a test that needs several Ray nodes is among them.
    """

    what: str
    promise: str
    tests: tuple[str, ...]
    cluster: bool = False


FAULTS: dict[str, Fault] = {
    "F1": Fault("SIGKILL of the driver at random moments", "every trial is there after the resume, once, its epochs "
                "without a gap", ("test_sweeps_faults.py::test_a_driver_killed_at_random_moments",
                                  "test_sweeps_run.py::test_a_killed_driver_loses_nothing_and_the_same_command_goes_on",
                                  "test_end_to_end.py::test_sweep_kill_resume_confirm_report_promote_train")),
    "F2": Fault("SIGKILL inside a write", "the state before it is used, or the write is finished",
                ("test_promotion_kills.py::test_a_kill_at_any_write_leaves_the_old_state_or_the_new",
                 "test_training.py::test_kill_between_record_and_checkpoint_is_repaired",
                 "test_sweeps_objects.py::test_the_last_event_of_a_block_half_written_leaves_the_block_open")),
    "F3": Fault("SIGTERM", "the last state is written, the command that resumes is printed",
                ("test_sweeps_run.py::test_sigterm_while_the_workers_start_ends_resumably",
                 "test_cli.py::test_sigterm_ends_a_command_as_ctrl_c_does")),
    "F4": Fault("Ctrl-C", "as SIGTERM; exit code 130", ("test_sweeps_run.py::test_ctrl_c_ends_the_sweep_resumably",
                                                        "test_sweeps_end.py::test_signals")),
    "F5": Fault("a trial's process is killed", "it goes on after its last record, and fails after three deaths",
                ("test_sweeps_faults.py::test_each_fault_ends_as_what_it_is_and_the_study_has_none_running",
                 "test_sweeps_run.py::test_a_sweep_with_every_kind_of_trial")),
    "F6": Fault("a machine goes away, or is drained", "its trials go on elsewhere, no trial pays",
                ("test_cluster.py::test_machines_die_drain_and_join_and_no_trial_pays",
                 "test_machines.py::test_losing_machines_is_never_held_against_a_trial"), cluster=True),
    "F7": Fault("Ray's raylet or head dies, or is late", "the sweep goes on, or the command ends, resumable",
                ("test_ray_dies.py::test_a_ray_that_dies_loses_nothing",
                 "test_sweeps_ray_session.py::test_a_ray_that_is_late_is_the_machines_fault",
                 "test_sweeps_ray_session.py::test_what_ray_and_the_machine_raise_is_one_message")),
    "F8": Fault("memory runs out", "named with the numbers and the advice, tried again once",
                ("test_sweeps_faults.py::test_a_trial_that_rays_memory_monitor_kills",
                 "test_sweeps_faults.py::test_a_process_whose_training_failed_is_not_used_again")),
    "F9": Fault("the storage is full", "what was kept stays, the same command resumes",
                ("test_sweeps_faults.py::test_a_full_disk_ends_the_sweep_resumably",
                 "test_inputs_disks.py::test_a_full_disk_is_told_and_nothing_is_lost")),
    "F10": Fault("the disk is full for a worker", "no trial fails of it, the same command resumes",
                 ("test_sweeps_faults.py::test_a_disk_that_is_full_for_a_worker_ends_the_sweep_resumably",)),
    "F11": Fault("the storage is read-only or gone", "said before anything starts",
                 ("test_inputs_disks.py::test_a_read_only_disk_is_told_and_read",
                  "test_sweeps_stores.py::test_a_store_that_cannot_be_written_is_named")),
    "F12": Fault("Ray's own state is lost", "it is not needed: everything is in the journal",
                 ("test_sweeps_run.py::test_a_killed_driver_loses_nothing_and_the_same_command_goes_on",)),
    "F13": Fault("the searcher's state is lost", "it is rebuilt from the journal",
                 ("test_sweeps_journal.py::test_the_state_is_the_replay_of_the_events",)),
    "F14": Fault("the journal is torn or damaged", "a torn last line is dropped, other damage is refused by line",
                 ("test_sweeps_journal.py::test_damage_in_the_middle_is_said_and_not_skipped",
                  "test_hostile_journal.py::test_the_damage_of_a_journal_is_an_input_that_is_wrong_for_every_command")),
    "F15": Fault("a checkpoint is damaged", "the file is named; no silent start from nothing",
                 ("test_training.py::test_damaged_checkpoint_names_the_file",
                  "test_hostile_records.py::test_a_checkpoint_of_something_else_is_named")),
    "F16": Fault("two drivers on one sweep", "the second refuses and names the first",
                 ("test_sweeps_journal.py::test_a_second_driver_is_refused_by_name",
                  "test_sweeps_lease.py::test_a_second_writer_is_refused_by_name")),
    "F17": Fault("the lock of a dead driver", "is taken over",
                 ("test_sweeps_lease.py::test_a_dead_process_of_this_machine_is_taken_over_at_once",
                  "test_sweeps_lease.py::test_a_claim_from_another_machine_runs_out")),
    "F18": Fault("the clock goes back", "order is by sequence numbers",
                 ("test_sweeps_journal.py::test_sequence_numbers_run_on_over_sessions",
                  "test_sweeps_journal.py::test_time_is_spent_by_sessions_and_not_between_them")),
    "F19": Fault("ids that are there twice", "are damage",
                 ("test_hostile_journal.py::test_an_event_about_a_stranger_is_damage",)),
    "F20": Fault("NaN at any epoch", "failed (diverged) with step and remedy, never promoted",
                 ("test_training.py::test_diverging_run_ends_as_failed_with_the_step_and_the_remedy",
                  "test_sweeps_end.py::test_no_completed_trial_is_an_answer_of_no")),
    "F21": Fault("MLflow is down, or goes down halfway", "training goes on; sync makes it whole",
                 ("test_trackers_mlflow.py::test_mlflow_out_of_reach_is_one_warning_and_a_finished_run",
                  "test_trackers_mlflow.py::test_a_sweep_that_lost_mlflow_halfway_is_made_whole_from_its_journal")),
    "F22": Fault("W&B is down, or hangs", "training goes on; it is given up in time",
                 ("test_trackers_wandb.py::test_wandb_out_of_reach_is_one_warning_and_a_finished_run",
                  "test_trackers_wandb.py::test_a_wandb_that_hangs_does_not_keep_the_process")),
    "F23": Fault("data are replaced, truncated or gone while training", "the file is named; other data are refused",
                 ("test_data_windows.py::test_a_file_replaced_while_training_is_named",
                  "test_data_windows.py::test_a_file_that_comes_back_is_read_on",
                  "test_training.py::test_resume_on_other_data_is_refused")),
    "F24": Fault("a trial hangs", "killed after its limit; failed (hung), with where it stood",
                 ("test_sweeps_faults.py::test_each_fault_ends_as_what_it_is_and_the_study_has_none_running",)),
    "F25": Fault("a promotion is interrupted, or its target edited", "the old file or the new, and edits are kept",
                 ("test_promotion_kills.py::test_a_kill_at_any_write_leaves_the_old_state_or_the_new",
                  "test_hostile_answers.py::test_whatever_was_edited_in_a_production_yaml_is_kept")),
    "F26": Fault("processes after the end", "none of ours 10 s later",
                 ("test_sweeps_run.py::test_a_killed_driver_loses_nothing_and_the_same_command_goes_on",
                  "test_kill_rounds.py::test_whatever_is_killed_nothing_is_lost_or_done_twice"), cluster=True),
}
