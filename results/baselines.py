"""Assigns plain training to every experiment for which it is the baseline.

Plain training has fewer settings than a run with an estimator: no learning rate of φ and no penalty. So one plain run
is the baseline of every preset that agrees with it in the settings it has, even if its rows have another preset label.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

_LABELS = ["preset", "preset_name", "changed"]


def spread(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows, with plain training copied to every preset for which it is the baseline, else under its own."""
    plain = frame["name"] == "plain"
    if not plain.any() or plain.all():
        return frame
    cells = frame.drop_duplicates("hash")
    settings = {text: json.loads(text) for text in cells["settings"].unique()}
    own, others = cells[cells["name"] == "plain"], cells[cells["name"] != "plain"]
    there = set(zip(own["suite"], own["task"], own["seed"], own["preset"], own["data"].fillna(""), strict=True))
    copies, moved = [], set()
    contexts = others.drop_duplicates(["suite", "task", "data", "preset"])
    for cell in own.itertuples():
        same = contexts[(contexts["suite"] == cell.suite) & (contexts["task"] == cell.task)]
        lonely = cell.preset not in set(same["preset"])
        for other in same.itertuples():
            key = (cell.suite, cell.task, cell.seed, other.preset, _text(cell.data))
            alike = _text(cell.data) == _text(other.data) and _within(settings[cell.settings], settings[other.settings])
            if alike and lonely:
                moved.add(cell.hash)
            if alike and key not in there:
                there.add(key)
                mine = frame[frame["hash"] == cell.hash]
                copies.append(mine.assign(**{name: getattr(other, name) for name in _LABELS}))
    kept = frame[~frame["hash"].isin(moved)]
    return pd.concat([kept, *copies], ignore_index=True) if copies else kept


def _within(few: dict[str, dict[str, Any]], many: dict[str, dict[str, Any]]) -> bool:
    """Whether every setting of `few` has the same value in `many`."""
    return all(many.get(group, {}).get(name, few) == value for group, own in few.items() for name, value in own.items())


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value)
