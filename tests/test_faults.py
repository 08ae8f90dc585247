"""Which test holds which fault: those that other people's pipelines, code and bug reports brought to light.

Each entry stands for a kind. A test that is renamed or taken away has to be replaced here.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

FAULTS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "what is asked for changes inside a run",
        (
            "accel/test_conditioning.py::test_a_change_is_seen_and_its_step_computed",
            "accel/test_conditioning.py::test_a_prompt_switched_inside_a_run_of_a_trained_pipeline",
            "accel/test_conditioning.py::test_an_adapter_in_any_block",
            "accel/test_conditioning.py::test_the_scale_of_an_image_prompt",
            "accel/test_conditioning.py::test_guidance_that_stops_keeps_the_history_of_the_branch_that_goes_on",
            "accel/test_conditioning.py::test_guidance_that_starts_is_not_taken_for_the_branch_whose_place_it_takes",
        ),
    ),
    2: (
        "requests that share a transformer",
        (
            "accel/test_requests.py::test_two_threads_with_a_scheduler_each",
            "accel/test_requests.py::test_taking_turns_in_one_thread_by_name",
            "accel/test_requests.py::test_taking_turns_in_one_thread_without_a_name_is_refused",
        ),
    ),
    3: (
        "a solver at other noise levels than the pipeline's",
        (
            "accel/test_solver.py::test_the_noise_levels_are_the_schedulers_own",
            "accel/test_solver.py::test_the_equation_is_the_schedulers_own",
            "accel/test_solver.py::test_clip_sample_is_kept",
            "accel/test_solver_pipelines.py::test_it_runs_or_is_refused_at_once_as_the_table_says",
        ),
    ),
    4: (
        "correction that harms",
        (
            "accel/test_correction_claims.py::test_corrected_is_not_further_from_plain_on_dit",
            "accel/test_correction_claims.py::test_flows_gain",
        ),
    ),
    5: ("a solver that draws noise", ("accel/test_replay.py::test_off_where_noise_is_added",)),
    6: ("caches of diffusers put on by hand", ("accel/test_surroundings.py::test_a_cache_that_is_put_on_by_hand",)),
    7: (
        "a byte order mark or a NUL in a file of prompts",
        ("cli/test_shell_faults.py::test_a_mark_at_the_beginning_of_a_prompts_file_is_no_part_of_a_prompt",),
    ),
    8: ("a pipeline saved under Solver", ("accel/test_solver.py::test_what_is_saved_is_the_schedulers_own",)),
    9: (
        "smaller pictures and tiles that are not the published ones",
        (
            "models/test_published_behaviour.py::test_maxim_takes_every_smaller_picture_from_the_full_one",
            "models/test_published_behaviour.py::test_tiles_of_dlgsanet_are_the_published_ones",
        ),
    ),
    10: (
        "several processes",
        (
            "accel/test_ranks.py::test_parts_of_one_sample_are_decided_as_by_one_process",
            "accel/test_ranks.py::test_where_weights_are_sharded_one_that_computes_makes_all_compute",
        ),
    ),
    11: (
        "a solver or a preset that fails inside a pipeline that it accepted",
        (
            "accel/test_solver_pipelines.py::test_it_runs_or_is_refused_at_once_as_the_table_says",
            "accel/test_solver_specimens.py::test_every_class_runs_or_is_refused_as_the_table_says",
            "accel/test_solver.py::test_a_preset_leaves_out_what_cannot_be",
            "accel/test_solver.py::test_image_to_image_begins_where_it_is_told",
        ),
    ),
    12: (
        "two references beside a picture",
        ("accel/attention/test_layout.py::test_references_beside_the_picture_are_no_grid",),
    ),
    13: (
        "kernels that do not fit a device, devices without float64",
        (
            "kernels/test_compiled_kernels.py::test_every_kernel_compiles_for_every_card",
            "accel/attention/test_without_float64.py::test_every_target",
            "accel/attention/test_without_float64.py::test_a_forecast",
        ),
    ),
    14: (
        "pickled while accelerated",
        (
            "accel/test_surroundings.py::test_pickled_and_copied_while_accelerated",
            "accel/test_surroundings.py::test_a_trace_goes_to_another_process_and_a_handle_does_not",
        ),
    ),
    15: (
        "a pipeline where a transformer is meant, a class that nobody has",
        (
            "cli/test_shell_faults.py::test_a_pipeline_is_converted_like_it_is_accelerated",
            "cli/test_shell_faults.py::test_a_class_that_diffusers_does_not_have_is_named",
        ),
    ),
    16: (
        "compiled or replaced after accelerate",
        (
            "accel/test_surroundings.py::test_compiled_after_accelerate",
            "accel/test_surroundings.py::test_compiled_as_one_graph_after_accelerate_is_told_the_way_out",
            "accel/test_surroundings.py::test_compiling_in_place_after_accelerate_is_refused",
            "accel/test_surroundings.py::test_a_transformer_that_was_replaced",
        ),
    ),
    17: (
        "a second pipeline that begins part of the way down",
        ("accel/test_requests.py::test_a_second_pipeline_that_begins_part_of_the_way_down_after_the_first_has_run",),
    ),
    18: ("few steps", ("accel/test_surroundings.py::test_a_run_too_short_to_forecast_says_what_to_try",)),
    19: (
        "a handle that was not kept, a trace that grows",
        (
            "accel/test_surroundings.py::test_a_handle_that_was_not_kept",
            "accel/test_surroundings.py::test_a_trace_does_not_grow_for_ever",
        ),
    ),
    20: (
        "variants and adapters",
        (
            "cli/test_pipeline_options.py::test_a_variant_is_loaded_where_the_folder_has_it",
            "cli/test_pipeline_options.py::test_an_adapter_and_its_scale_are_read",
        ),
    ),
    21: (
        "tests that hold on one processor only",
        (
            "test_closeness.py::test_another_order_of_summing_passes_and_a_dropped_term_does_not",
            "pipelines/test_vdt.py::test_a_saved_pipeline_makes_the_same",
            "evaluation/test_compare_command.py::test_a_sample_does_not_depend_on_its_batch_and_nothing_is_left_behind",
        ),
    ),
    22: (
        "refusals that guess at a name nobody typed",
        ("cli/test_shell_faults.py::test_a_refusal_of_an_unknown_transformer_begins_with_what_it_is",),
    ),
    23: (
        "a family whose data are wrong where threshold 0 cannot see it",
        (
            "accel/test_check.py::test_wrong_data_is_caught",
            "accel/test_check.py::test_a_third_party_finds_out_that_a_stream_is_missing",
        ),
    ),
    24: (
        "a clip that failed and is reported as made",
        (
            "cli/test_shell_faults.py::test_a_clip_that_no_player_shows_is_refused",
            "cli/test_shell_faults.py::test_a_clip_that_the_encoder_did_not_finish_is_not_there",
        ),
    ),
    25: (
        "a damaged card of a converted folder",
        ("cli/test_shell_faults.py::test_a_converted_folder_whose_card_is_damaged_is_refused_and_one_without_is_told",),
    ),
    26: (
        "a device in the place of a file",
        ("test_files.py::test_what_is_no_ordinary_file_is_refused_and_left_as_it_is",),
    ),
    27: (
        "a shipped card overwritten",
        ("cli/test_shell_faults.py::test_saving_a_card_in_an_installation_is_refused_before_anything_is_run",),
    ),
    28: (
        "a comparison of nobody, a target nobody can miss or keep",
        (
            "cli/test_shell_faults.py::test_a_comparison_without_a_contender_is_refused",
            "cli/test_shell_faults.py::test_a_target_that_nothing_or_everything_keeps_is_refused",
        ),
    ),
    29: ("full disks", ("cli/test_bad_inputs.py::test_every_bad_input_ends_in_one_line",)),
    30: (
        "damaged folders and pictures",
        (
            "cli/test_bad_inputs.py::test_every_bad_input_ends_in_one_line",
            "cli/test_shell_faults.py::test_a_picture_of_a_study_that_was_cut_is_treated_as_absent",
        ),
    ),
    31: ("absurd sizes, seeds, places and results", ("cli/test_bad_inputs.py::test_every_bad_input_ends_in_one_line",)),
    32: (
        "what confuses",
        (
            "cli/test_confusing.py::test_a_point_that_is_not_there_at_this_number_of_steps_is_answered_with_those_that_are",
            "cli/test_confusing.py::test_one_prompt_is_enough_to_convert",
            "cli/test_confusing.py::test_a_device_that_is_not_there_is_told_in_a_short_line",
            "cli/test_confusing.py::test_one_request_has_no_interval",
            "cli/test_shell_faults.py::test_stopped_a_command_says_what_is_kept",
            "cli/test_shell_faults.py::test_a_budget_is_kept_over_several_runs",
        ),
    ),
    33: (
        "silence while something takes long",
        (
            "cli/test_shell_faults.py::test_a_terminal_shows_progress_however_wide_it_says_it_is",
            "cli/test_confusing.py::test_what_takes_long_shows_how_far_it_is",
        ),
    ),
    34: (
        "seconds of imports to print a few lines",
        (
            "cli/test_startup.py::test_looking_something_up_loads_nothing_heavy",
            "cli/test_startup.py::test_what_a_picture_needs_is_all_that_is_loaded",
        ),
    ),
    35: (
        "what presets set, and whose data is behind the weights",
        (
            "cli/test_startup.py::test_methods_says_what_each_preset_sets_for_every_family",
            "test_packaging.py::test_the_wheel_holds_everything_and_works",
        ),
    ),
    36: (
        "a checkpoint that runs code",
        ("cli/test_shell_faults.py::test_a_checkpoint_that_would_run_code_is_refused",),
    ),
}
"""What was wrong, and the tests that fail where it is wrong again."""


@cache
def names_in(file: Path) -> frozenset[str]:
    """Names of the test functions in a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("number", FAULTS)
def test_every_fault_has_its_tests(number: int) -> None:
    _, ids = FAULTS[number]
    assert ids
    for test in ids:
        file, name = test.split("::")
        assert name in names_in(TESTS / file), f"{test} is gone: what holds fault {number} now?"


def test_no_fault_is_left_out() -> None:
    assert sorted(FAULTS) == list(range(1, max(FAULTS) + 1))
