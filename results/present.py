"""What is compared on one task, as tables of text: what was just measured first, and nothing beside it of other data.

A context is a preset and a data set; what reads no data belongs to every data set of its preset.
"""

from collections.abc import Collection
from typing import NamedTuple

import pandas as pd

from results import summary

REFERENCE = " (reference)"
"""Marks the line of an estimator that is there a second time, of rows that were not measured here."""


class Shown(NamedTuple):
    """One table.

    Attributes:
        title: the preset and data set, and whether the rows are of others than those measured here.
        lines: as text: `estimator`, one column per quantity, and `failed` where something did.
        own: for each line whether it was measured here, and is to be bold.
        note: what deviates in the data, or nothing.
        left_out: estimators that have no line because too little was measured of them.
    """

    title: str
    lines: pd.DataFrame
    own: tuple[bool, ...]
    note: str
    left_out: int = 0


def own_first(frame: pd.DataFrame, own: Collection[str], task: str) -> list[Shown]:
    """Tables of one task: one for every preset and data set of the cells `own`, given by their hashes, with other
    rows beside them only where these are of the same preset and data set; where there are no such, a last table has
    rows of one other preset or data set and says so. Empty where the frame has nothing of the task.
    """
    rows = frame[frame["task"] == task]
    mine = rows["hash"].isin(list(own))
    tables = []
    beside = False
    for preset, dataset in contexts(rows[mine]):
        here = of_context(rows, preset, dataset)
        others = here[~here["hash"].isin(list(own))]
        beside |= not others.empty
        found = _table(here[here["hash"].isin(list(own))], others, task, summary.label(preset, dataset))
        tables += [found] if any(found.own) else []  # of some suites nothing is compared here
    if not beside and not (others := rows[~mine]).empty:
        same = others[others["preset_name"].isin(rows.loc[mine, "preset_name"])]
        preset, dataset = main(others if same.empty else same)
        which = "other preset or data set, " if tables else ""
        title = f"Reference rows, {which}{summary.label(preset, dataset)}"
        tables.append(_table(others.iloc[:0], of_context(others, preset, dataset), task, title))
    return tables


def of_one(frame: pd.DataFrame, task: str, preset: str, dataset: str) -> Shown:
    """The table of one task, preset and data set, with no line standing out."""
    rows = of_context(frame[frame["task"] == task], preset, dataset)
    return _table(rows.iloc[:0], rows, task, summary.label(preset, dataset))


def shortened(shown: Shown) -> Shown:
    """The same table without lines, other than one's own, that are less than half as full as the fullest."""
    numbers = shown.lines.drop(columns=["estimator", "failed"], errors="ignore")
    filled = (numbers != "").sum(axis=1)
    kept = (2 * filled >= filled.max()) | pd.Series(shown.own, index=filled.index, dtype=bool)
    own = tuple(one for one, here in zip(shown.own, kept, strict=True) if here)
    return shown._replace(lines=shown.lines[kept], own=own, left_out=int((~kept).sum()))


def bold(shown: Shown) -> Shown:
    """The same table with one's own lines in bold, as Markdown has it."""
    lines = shown.lines.astype("str")
    marked = lines.map(lambda text: f"**{text}**" if text else "")
    return shown._replace(lines=lines.where(~pd.Series(shown.own, index=lines.index, dtype=bool), marked, axis=0))


def contexts(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Presets and data sets in the order of the rows; a preset without data only if it has no data set at all."""
    pairs = list(rows[summary.CONTEXT].drop_duplicates().itertuples(index=False, name=None))
    with_data = {preset for preset, dataset in pairs if dataset != summary.NO_DATA}
    return [(preset, dataset) for preset, dataset in pairs if dataset != summary.NO_DATA or preset not in with_data]


def of_context(rows: pd.DataFrame, preset: str, dataset: str) -> pd.DataFrame:
    """The rows of a preset and a data set, and those of the preset that read no data."""
    return rows[(rows["preset"] == preset) & rows["dataset"].isin([dataset, summary.NO_DATA])]


def main(rows: pd.DataFrame) -> tuple[str, str]:
    """The preset and data set that most estimators were measured with, one with data where there is any."""
    found = contexts(rows)
    there = pd.Series(list(rows[summary.CONTEXT].itertuples(index=False, name=None)), index=rows.index)
    preset, dataset = summary.main_context(rows[there.isin(found)])[summary.CONTEXT].iloc[0]
    return str(preset), str(dataset)


def _table(own: pd.DataFrame, others: pd.DataFrame, task: str, title: str) -> Shown:
    parts = [summary.summary(rows, task).reset_index() for rows in (own, others)]
    parts = [part[(part.drop(columns="estimator") != "").any(axis=1)] for part in parts]
    twice = parts[1]["estimator"].isin(parts[0]["estimator"])
    parts[1] = parts[1].assign(estimator=parts[1]["estimator"].mask(twice, parts[1]["estimator"] + REFERENCE))
    lines = pd.concat([part for part in parts if not part.empty] or parts, ignore_index=True).fillna("")
    columns = [name for name in summary.QUANTITIES if name in lines]
    columns += ["failed"] if "failed" in lines else []
    marks = (True,) * len(parts[0]) + (False,) * len(parts[1])
    return Shown(title, lines[["estimator", *columns]], marks, summary.data_notes(pd.concat([own, others])))
