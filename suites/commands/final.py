"""Prints the results of a sweep: its own cells first, then comparable committed ones."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suites.commands import tables

if TYPE_CHECKING:
    import pandas as pd

    from suites.engine.plan import Planned


def show(planned: Sequence[Planned], rows: Path, reference: Path, pair: Sequence[str] | None) -> None:
    """Print the tables.

    Args:
        planned: the cells of the sweep.
        rows: the folder of their rows.
        reference: the folder of committed rows to compare with.
        pair: labels of two estimators whose paired difference is printed, or None.
    """
    from results import paper, present, table

    frame = table.read(rows, reference)
    hashes = {item.cell.hash for item in planned}
    own = frame[frame["hash"].isin(hashes)]
    for task in dict.fromkeys(item.cell.task for item in planned):
        for found in present.own_first(frame, hashes, task):
            bold = [at for at, mine in enumerate(found.own) if mine]
            _show_frame(f"{task}, {found.title}", found.lines, bold=bold)
            if found.note:
                tables.say_folded(found.note)
    if any(item.cell.suite == "accuracy" for item in planned):
        for place, lines, noise, note in paper.beside(own):
            _show_frame(f"Table 1 of the paper, and ours: {place}", lines.reset_index(), keys=2)
            tables.say_folded(" ".join([noise, note]))
    if pair is not None:
        _show_comparison(own, pair)
    for line in failures(planned, rows):
        tables.say(line)


def listed(planned: Sequence[Planned], rows: Path) -> list[dict[str, Any]]:
    """The sweep's cells with their results, as JSON."""
    from results import table

    frame = table.read(rows)
    found = []
    wanted = ["metric", "part", "point", "x", "unit", "value", "se", "n"]
    for item in planned:
        cell, outcome = item.cell.described(), table.outcome(rows, item.cell.hash)
        one = {key: cell[key] for key in ("suite", "task", "estimator", "preset", "dataset", "seed")}
        one |= {"hash": item.cell.hash, "status": None, "message": None} | (outcome._asdict() if outcome else {})
        lines = frame[(frame["hash"] == item.cell.hash) & (frame["status"] == "ok")]
        one["results"] = json.loads(lines[wanted].to_json(orient="records", double_precision=15))
        found.append(one)
    return found


def failures(planned: Sequence[Planned], rows: Path) -> list[str]:
    """A line for each failed estimator and task, with the suites that failed with the same message."""
    from results import table

    failed: dict[tuple[str, ...], dict[str, None]] = {}
    for item in planned:
        kept = table.outcome(rows, item.cell.hash)
        if kept is not None and kept.status != "ok":
            where = kept.status, str(item.cell.label), item.cell.task, kept.message
            failed.setdefault(where, {})[item.cell.suite] = None
    return [
        f"{kept}: {label} on {task} ({', '.join(suites)}): {message}"
        for (kept, label, task, message), suites in failed.items()
    ]


def compared(own: pd.DataFrame, pair: Sequence[str]) -> list[dict[str, Any]]:
    """A minus B for each metric of the accuracy suite, paired by seed."""
    import pandas as pd

    from results import stats

    a, b = pair
    final = own[(own["suite"] == "accuracy") & own["x"].isna() & own["value"].notna()]
    found = []
    for (task, metric, part), group in final.groupby(["task", "metric", "part"], dropna=False):
        wide = group.pivot_table(index="seed", columns="estimator", values="value")
        if a in wide and b in wide and len(both := wide[[a, b]].dropna()):
            d = stats.paired(both[a], both[b])
            name = metric if pd.isna(part) else f"{metric} ({part})"
            numbers = {"difference": d.estimate, "low": d.low, "high": d.high, "p": d.p}
            known = {key: value if value == value else None for key, value in numbers.items()}
            found.append({"task": task, "metric": name, **known, "pairs": d.n})
    return found


def _show_frame(title: str, frame: pd.DataFrame, keys: int = 1, bold: Collection[int] = ()) -> None:
    lines = [[str(text) for text in line] for line in frame.itertuples(index=False)]
    tables.show(title, [str(column) for column in frame.columns], lines, keys=keys, bold=bold)


def _show_comparison(own: pd.DataFrame, pair: Sequence[str]) -> None:
    found = compared(own, pair)
    if not found:
        tables.say("nothing to compare: --compare needs results of the accuracy suite for both")
        return
    header = ["task", "metric", "difference", "95 % interval", "p", "pairs"]
    lines = [
        [
            one["task"], one["metric"], _number(one["difference"]), f"{_number(one['low'])} … {_number(one['high'])}",
            _number(one["p"], 3), str(one["pairs"]),
        ]
        for one in found
    ]  # fmt: skip
    tables.show(f"{pair[0]} − {pair[1]}, paired by seed", header, lines, keys=2)


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}g}"
