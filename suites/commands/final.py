"""What a sweep came to: its own cells first, then committed ones that can stand beside them, figures and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suites.commands import tables

if TYPE_CHECKING:
    import pandas as pd

    from suites.engine.plan import Planned

SAME = ["suite", "task", "preset", "dataset"]
"""What rows must have in common to be compared."""


def own_rows(frame: pd.DataFrame, planned: Sequence[Planned]) -> pd.DataFrame:
    """The rows of the cells that were asked for."""
    return frame[frame["hash"].isin({item.cell.hash for item in planned})]


def beside(own: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of other estimators with the preset, all its changes, and the data set of own rows of the same suite."""
    alike = own[SAME].drop_duplicates()
    others = frame[~frame["hash"].isin(own["hash"]) & ~frame["estimator"].isin(own["estimator"])]
    return others.merge(alike, on=SAME, how="inner").astype(frame.dtypes.to_dict())


def show(planned: Sequence[Planned], rows: Path, reference: Path, context: str, pair: Sequence[str] | None) -> None:
    """Print the tables.

    Args:
        planned: the cells of the sweep, all of one preset and data set.
        rows: where theirs are.
        reference: rows to set beside them.
        context: of the sweep, for titles: its preset and data set.
        pair: labels of two estimators whose paired difference is wanted.
    """
    from results import baselines, paper, table
    from results.summary import summary

    frame = table.read(rows, reference)
    own = own_rows(frame, planned)
    others = beside(own, baselines.spread(frame))
    for task in dict.fromkeys(item.cell.task for item in planned):
        for what, found in (("measured here", own), ("measured before, at the same preset and data", others)):
            lines = summary(_one_context(found), task)
            if not lines.empty:
                _show_frame(f"{task}, {context}: {what}", lines.reset_index())
    if any(item.cell.suite == "accuracy" for item in planned):
        for place, lines, noise, note in paper.beside(baselines.spread(own)):
            _show_frame(f"Table 1 of the paper, and ours: {place}", lines.reset_index(), keys=2)
            tables.say(" ".join(text for text in (noise, note) if text))
    if pair is not None:
        _show_comparison(own, pair)
    for line in failures(planned, rows):
        tables.say(line)


def listed(planned: Sequence[Planned], rows: Path) -> list[dict[str, Any]]:
    """The sweep's cells with their results, as JSON."""
    from results import table

    found = []
    wanted = ("metric", "part", "point", "x", "unit", "value", "se", "n")
    for item in planned:
        lines = table.read_file(rows / f"{item.cell.hash}.jsonl")
        cell, status = lines[0]["cell"], table.status(rows, item.cell.hash)
        one = {key: cell[key] for key in ("suite", "task", "estimator", "preset", "dataset", "seed")}
        one |= {"hash": item.cell.hash, "status": status, "message": lines[0]["message"]}
        one["results"] = [{key: line[key] for key in wanted} for line in lines if line["status"] == "ok"]
        found.append(one)
    return found


def failures(planned: Sequence[Planned], rows: Path) -> list[str]:
    """A line for each estimator and task that failed, with the suites in which it failed alike."""
    from results import table

    failed: dict[tuple[str, ...], dict[str, None]] = {}
    for item in planned:
        if (kept := table.status(rows, item.cell.hash)) not in ("ok", None):
            message = table.read_file(rows / f"{item.cell.hash}.jsonl")[0]["message"]
            failed.setdefault((str(kept), str(item.cell.label), item.cell.task, message), {})[item.cell.suite] = None
    return [
        f"{kept}: {label} on {task} ({', '.join(suites)}): {message}"
        for (kept, label, task, message), suites in failed.items()
    ]


def compared(own: pd.DataFrame, pair: Sequence[str]) -> list[dict[str, Any]]:
    """A minus B, metric by metric, paired by seed."""
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


def _one_context(frame: pd.DataFrame) -> pd.DataFrame:
    """The parts of one preset and data set on which cells depend have names of their own; here they are one."""
    return frame.assign(preset="", dataset="").astype(frame.dtypes.to_dict())


def _show_frame(title: str, frame: pd.DataFrame, keys: int = 1) -> None:
    lines = [[str(text) for text in line] for line in frame.itertuples(index=False)]
    tables.show(title, [str(column) for column in frame.columns], lines, keys=keys)


def _show_comparison(own: pd.DataFrame, pair: Sequence[str]) -> None:
    found = compared(own, pair)
    if not found:
        tables.say("nothing to pair: --compare reads the accuracy suite")
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
