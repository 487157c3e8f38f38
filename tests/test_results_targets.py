"""The table of what a step may cost."""

from pathlib import Path
from typing import Any

import made_rows
import pandas as pd
import pytest

from results import table, targets

Found = list[tuple[str, float, float, float | None]]


def rows_of(directory: Path, estimator: str, preset: str, found: Found, **cell: Any) -> None:
    shared = {
        "cell": made_rows.cell("overhead", "width", estimator, preset=preset, dataset="none", **cell),
        "provenance": made_rows.PROVENANCE,
    }
    number = len(list(directory.iterdir()))
    table.write(directory, f"{number:016x}", [{**table.row(m, v, se=se, x=x, n=9), **shared} for m, v, se, x in found])


def test_a_target_is_met_missed_or_inconclusive(tmp_path: Path) -> None:
    rows_of(tmp_path, "concrete", "cpu", [("time_ratio", 1.0, 0.01, None), ("peak_ratio", 1.2, 0.0, None)])
    of_fp32: dict[str, Any] = {"preset_name": "cpu", "changed": {"train.bf16": False}}
    rows_of(tmp_path, "straight_through", "cpu, in fp32", [("time_ratio", 1.02, 0.01, None)], **of_fp32)
    rows_of(tmp_path, "gumbel_straight_through", "quick", [("time_ratio", 1.0, 0.01, None)])  # another network
    deeper: dict[str, Any] = {"changed": {"timed.depth": 28}}
    rows_of(tmp_path, "gumbel_straight_through", "cpu[…]", [("time_ratio", 1.0, 0.01, None)], **deeper)
    held = [("time_ratio_held", 1.2, 0.01, 1.0), ("time_ratio_held", 0.6, 0.01, 0.5)]
    rows_of(tmp_path, "reinforce", "cpu", held)
    lean = {"coupled": True, "tuning": "regression"}
    label, once = "rebar as it is displayed", [("time_ratio_held", 1.5, 0.01, 1.0)]
    rows_of(tmp_path, label, "cpu", once, name="rebar", options={**lean, "part": 1})
    rows_of(tmp_path, "rebar on parts", "cpu", once, name="rebar", options={**lean, "part": 2})
    lines = targets.table(table.read(tmp_path)).set_index(["estimator", "what"])["verdict"]
    pd.testing.assert_series_equal(
        lines,
        pd.Series(
            {
                ("concrete", "time"): "met",
                ("concrete", "peak memory"): "missed",
                ("straight_through", "time"): "inconclusive",
                ("reinforce", "time at 1 of the width"): "missed",
                ("reinforce", "time at 0.5 of the width"): "met",
                (label, "time at 1 of the width"): "met",
            },
            name="verdict",
        ),
        check_names=False,
        check_dtype=False,
    )


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: f"{target.task}-{target.estimators[0][0]}")
def test_targets_are_of_estimators_and_options_that_there_are(target: targets.Target) -> None:
    import estimators

    for name, options in target.estimators:
        estimators.get(name, sizes=(4, 4), **dict(options))
