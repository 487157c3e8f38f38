"""The table: of every estimator each measure with its interval, or why there is none; and the rows behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from results import schema, summary

NOT_MEASURED = "not measured"
SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross", "X": "x",
    "p": "pentagon", "<": "triangle-left", ">": "triangle-right",
}  # fmt: skip
"""Plotly's names of matplotlib's markers."""
_CELL = [
    "hash", "suite", "task", "estimator", "preset", "dataset", "seed", "device", "dtype", "commit", "dirty", "torch",
    "numpy", "python", "wall_s",
]  # fmt: skip


def short(value: float, digits: int = 4) -> float | None:
    """A number as the page holds it; None for what is not finite."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


class Rows:
    """The rows behind the numbers of a page, each once.

    Attributes:
        kept: of each row the cell, metric, part and point, value, standard error and n.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.kept: list[list[Any]] = []
        self._places: dict[tuple[Any, ...], int] = {}
        metrics = {name for _, names in summary.SOURCES.values() for name in names}
        used = frame[frame["metric"].isin(metrics) & (frame["status"] == "ok") & frame["value"].notna()]
        columns = ["hash", "metric", "part", "point", "value", "se", "n"]
        self._of_cell: dict[str, list[tuple[Any, ...]]] = {}
        for row in used[columns].drop_duplicates().itertuples(index=False, name=None):
            self._of_cell.setdefault(row[0], []).append(row)

    def behind(self, line: Any, quantity: str) -> list[int]:
        """Indices of the rows that a pooled number is made of."""
        return sorted(self._index(row) for row in self._found(line, summary.SOURCES[quantity][1]))

    def _found(self, line: Any, metrics: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        for cell in dict.fromkeys(line.cells):
            for row in self._of_cell.get(cell, ()):
                _, metric, part, point, *_ = row
                if metric in metrics and _of(part, line.part) and _of(point, line.point):
                    yield row

    def _index(self, row: tuple[Any, ...]) -> int:
        key = row[:4]
        if key not in self._places:
            self._places[key] = len(self.kept)
            cell, metric, part, point, value, se, n = row
            where = ", ".join(str(one) for one in (part, point) if not pd.isna(one))
            self.kept.append([cell, metric, where, short(value, 6), short(se, 3), int(n)])
        return self._places[key]


def _of(mine: Any, line: Any) -> bool:
    """Whether a row of this part or point belongs to a line of that one; a cost has neither, and belongs to all."""
    return bool(pd.isna(mine) or mine == line)


def table(here: pd.DataFrame, found: Mapping[str, pd.DataFrame], rows: Rows) -> dict[str, dict[str, Any]]:
    """Of every estimator that was tried at a place each quantity: ``[value, low, high, n, text, rows, failed]``, or why
    there is none, in words.

    Args:
        here: the rows of the place.
        found: what is compared there, as `results.summary.quantities` gives it.
        rows: takes up those behind each number.
    """
    failed = failures(here)
    lines: dict[str, dict[str, Any]] = {label: {} for label in summary.ordered(here)}
    for name in (name for name in summary.QUANTITIES if name in found):
        for line in found[name].itertuples():
            text = summary.with_error(line)
            lines[str(line.estimator)][name] = [
                short(line.value, 6), short(line.low, 6), short(line.high, 6), int(line.n), text,
                rows.behind(line, name), failed.get((summary.SOURCES[name][0], str(line.estimator)), ""),
            ]  # fmt: skip
        for label, line in lines.items():
            if name not in line:
                why = failed.get((summary.SOURCES[name][0], label))
                line[name] = f"failed: {why}" if why else NOT_MEASURED
    return {label: line for label, line in lines.items() if any(one != NOT_MEASURED for one in line.values())}


def failures(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Of each suite and estimator that failed in cells, how and why."""
    failed = rows[rows["status"] != "ok"].drop_duplicates(["hash", "status", "message"])
    said: dict[tuple[str, str], list[str]] = {}
    for suite, label, status, message in failed[["suite", "estimator", "status", "message"]].itertuples(
        index=False, name=None
    ):
        why = status if pd.isna(message) or not message else f"{status}: {message}"
        said.setdefault((suite, label), []).append(why)
    return {key: "; ".join(dict.fromkeys(reasons)) for key, reasons in said.items()}


def cells(frame: pd.DataFrame) -> list[list[Any]]:
    """Every cell with its provenance: `_CELL`, the number of its rows, its worst status and a message."""
    order = frame["status"].map(schema.STATUSES.index)
    worst = frame.loc[order.groupby(frame["hash"]).idxmax()].set_index("hash")
    counts = frame.groupby("hash").size()
    lines = []
    for row in frame.drop_duplicates("hash")[_CELL].itertuples(index=False, name=None):
        end = worst.loc[row[0]]
        line = [None if pd.isna(value) else schema.plain(value) for value in row]
        lines.append([*line, int(counts[row[0]]), end["status"], "" if pd.isna(end["message"]) else end["message"]])
    return lines


def provenance(rows: pd.DataFrame) -> str:
    """Where some rows come from, in one line."""
    cells = rows[["hash", "seed", "commit", "torch", "device", "dtype"]].drop_duplicates("hash")
    seeds = ", ".join(str(seed) for seed in sorted(cells["seed"].unique()))
    said = [f"seed {seeds}"]
    for name, word in (("commit", "commit"), ("torch", "torch"), ("device", ""), ("dtype", "")):
        values = [str(value)[:9] if name == "commit" else str(value) for value in cells[name].dropna().unique()]
        said.append(f"{word} {' and '.join(values)}".strip())
    return "; ".join(one for one in said if one)
