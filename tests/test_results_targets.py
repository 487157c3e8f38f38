"""The table of what a step may cost."""

from pathlib import Path

import pandas as pd
import pytest

from results import table, targets


def rows_of(directory: Path, estimator: str, preset: str, found: list[tuple[str, float, float, float | None]]) -> None:
    shared = {
        "cell": {
            "suite": "overhead", "task": "width", "task_version": 1, "estimator": estimator, "estimator_version": 1,
            "preset": preset, "dataset": "none", "seed": 0, "settings": {},
        },
        "provenance": {
            "commit": None, "dirty": None, "python": "3", "torch": "2", "numpy": "2", "device": "cpu",
            "dtype": "bfloat16", "wall_s": 1.0,
        },
    }  # fmt: skip
    name = f"{abs(hash((estimator, preset))):016x}"[:16]
    table.write(directory, name, [{**table.row(m, v, se=se, x=x, n=9), **shared} for m, v, se, x in found])


def test_a_target_is_met_missed_or_not_told_apart(tmp_path: Path) -> None:
    rows_of(tmp_path, "concrete", "cpu", [("time_ratio", 1.0, 0.01, None), ("peak_ratio", 1.2, 0.0, None)])
    rows_of(tmp_path, "straight_through", "cpu[bf16=False]", [("time_ratio", 1.02, 0.01, None)])
    rows_of(tmp_path, "gumbel_straight_through", "quick", [("time_ratio", 1.0, 0.01, None)])  # another network
    held = [("time_ratio_held", 1.2, 0.01, 1.0), ("time_ratio_held", 0.6, 0.01, 0.5)]
    rows_of(tmp_path, "reinforce", "cpu", held)
    lines = targets.table(table.read(tmp_path)).set_index(["estimator", "what"])["verdict"]
    pd.testing.assert_series_equal(
        lines,
        pd.Series(
            {
                ("concrete", "time"): "met",
                ("concrete", "peak memory"): "missed",
                ("straight_through", "time"): "not told apart",
                ("reinforce", "time at 1 of the width"): "missed",
                ("reinforce", "time at 0.5 of the width"): "met",
            },
            name="verdict",
        ),
        check_names=False,
        check_dtype=False,
    )


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: f"{target.task}-{target.estimators[0]}")
def test_labels_of_targets_are_as_rows_have_them(target: targets.Target) -> None:
    from suites import labels

    for label in target.estimators:
        assert str(labels.parse(label)) == label
