"""Plain training beside the experiments that it is the baseline of."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from results.baselines import spread


def line(name: str, preset: str, settings: dict[str, Any], **other: Any) -> dict[str, Any]:
    given = {"suite": "accuracy", "task": "width", "data": "0" * 16, "seed": 0, "value": 1.0, **other}
    return {"hash": f"{name} {preset} {given['seed']}", "name": name, "estimator": name, "preset": preset,
            "preset_name": "quick", "changed": "{}", "settings": json.dumps(settings), **given}  # fmt: skip


PLAIN = {"train": {"epochs": 2}, "network": {"depth": 10}}
LEARNED = {"train": {"epochs": 2, "phi_lr": 0.1}, "network": {"depth": 10, "width_step": 8}}


def presets(frame: pd.DataFrame, name: str = "plain") -> list[str]:
    return sorted(frame.loc[frame["name"] == name, "preset"])


def test_a_plain_run_is_the_baseline_of_every_preset_that_agrees_with_it() -> None:
    rows = [
        line("plain", "quick", PLAIN),
        line("rloo", "quick", LEARNED),
        line("rloo", "quick[penalty.gamma=1.0]", LEARNED | {"penalty": {"gamma": 1.0}}),
        line("rloo", "quick[train.epochs=3]", LEARNED | {"train": {"epochs": 3}}),
        line("rloo", "of other data", LEARNED, data="1" * 16),
        line("rloo", "of another task", LEARNED, task="depth"),
    ]
    frame = pd.DataFrame(rows)
    found = spread(frame)
    assert presets(found) == ["quick", "quick[penalty.gamma=1.0]"]
    assert presets(found, "rloo") == presets(frame, "rloo")
    assert found.dtypes.equals(frame.dtypes)


def test_a_plain_run_whose_label_is_nobodys_takes_that_of_those_it_is_the_baseline_of() -> None:
    frame = pd.DataFrame([line("plain", "quick", PLAIN), line("rloo", "quick[penalty.gamma=1.0]", LEARNED)])
    assert presets(spread(frame)) == ["quick[penalty.gamma=1.0]"]


def test_a_preset_with_a_plain_run_of_a_seed_gets_no_second_one() -> None:
    rows = [line("plain", preset, PLAIN, seed=seed) for preset in ("a", "b") for seed in (0, 1)]
    rows += [line("rloo", preset, LEARNED, seed=seed) for preset in ("a", "b") for seed in (0, 1)]
    assert len(spread(pd.DataFrame(rows))) == len(rows)


def test_plain_runs_alone_stay_as_they_are() -> None:
    frame = pd.DataFrame([line("plain", "quick", PLAIN), line("plain", "large", PLAIN)])
    pd.testing.assert_frame_equal(spread(frame), frame)
