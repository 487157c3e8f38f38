"""Tables of text for the comparison on one task: own rows first, together with rows of the same context only.

A context is a preset and a data set. Rows that read no data belong to every data set of their preset.
"""

from collections.abc import Collection
from typing import NamedTuple

import pandas as pd

from results import summary

REFERENCE = " (reference)"
"""Marks a second line of an estimator, from rows that were not measured here."""


class Shown(NamedTuple):
    """One table.

    Attributes:
        title: preset and data set, and whether they differ from those measured here.
        lines: text columns: `estimator`, one per quantity, and `failed` if cells failed.
        own: for each line, whether it was measured here (and is shown in bold).
        note: notes on the data, or "".
        left_out: how many estimators are left out because few of their quantities were measured.
    """

    title: str
    lines: pd.DataFrame
    own: tuple[bool, ...]
    note: str
    left_out: int = 0


def own_first(frame: pd.DataFrame, own: Collection[str], task: str) -> list[Shown]:
    """Tables of one task: one for every preset and data set of the cells with hashes `own`.

    Each table also has the other rows of the same preset and data set. If there are no such rows at all, a last table
    has rows of another preset or data set, and its title says so. Empty if the frame has no rows of the task.
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
        tables += [found] if any(found.own) else []  # some suites have no compared quantities
    if not beside and not (others := rows[~mine]).empty:
        same = others[others["preset_name"].isin(rows.loc[mine, "preset_name"])]
        preset, dataset = main(others if same.empty else same)
        which = "other preset or data set, " if tables else ""
        title = f"Reference rows, {which}{summary.label(preset, dataset)}"
        found = _table(others.iloc[:0], of_context(others, preset, dataset), task, title)
        tables += [] if found.lines.empty else [found]
    return tables


def of_one(frame: pd.DataFrame, task: str, preset: str, dataset: str) -> Shown:
    """The table of one task, preset and data set, without bold lines."""
    rows = of_context(frame[frame["task"] == task], preset, dataset)
    return _table(rows.iloc[:0], rows, task, summary.label(preset, dataset))


def shortened(shown: Shown) -> Shown:
    """The table without lines that are less than half as full as the fullest; own lines are always kept."""
    numbers = shown.lines.drop(columns=["estimator", "failed"], errors="ignore")
    filled = (numbers != "").sum(axis=1)
    kept = (2 * filled >= filled.max()) | pd.Series(shown.own, index=filled.index, dtype=bool)
    own = tuple(one for one, here in zip(shown.own, kept, strict=True) if here)
    return shown._replace(lines=shown.lines[kept], own=own, left_out=int((~kept).sum()))


def bold(shown: Shown) -> Shown:
    """The table with own lines in bold, as Markdown."""
    lines = shown.lines.astype("str")
    marked = lines.map(lambda text: f"**{text}**" if text else "")
    return shown._replace(lines=lines.where(~pd.Series(shown.own, index=lines.index, dtype=bool), marked, axis=0))


def own_contexts(frame: pd.DataFrame, own: Collection[str]) -> pd.DataFrame:
    """All rows of the presets and data sets of the cells `own`."""
    parts = []
    for _, rows in frame.groupby("task", sort=False):
        places = contexts(rows[rows["hash"].isin(list(own))])
        parts += [of_context(rows, *place) for place in places]
    return frame.loc[sorted({index for part in parts for index in part.index})] if parts else frame.iloc[:0]


def contexts(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Presets and data sets in the order of the rows. "No data" is left out for presets that have a data set."""
    pairs = list(rows[summary.CONTEXT].drop_duplicates().itertuples(index=False, name=None))
    with_data = {preset for preset, dataset in pairs if dataset != summary.NO_DATA}
    return [(preset, dataset) for preset, dataset in pairs if dataset != summary.NO_DATA or preset not in with_data]


def of_context(rows: pd.DataFrame, preset: str, dataset: str) -> pd.DataFrame:
    """The rows of a preset and data set, including those of the preset that read no data."""
    return rows[(rows["preset"] == preset) & rows["dataset"].isin([dataset, summary.NO_DATA])]


def main(rows: pd.DataFrame) -> tuple[str, str]:
    """The preset and data set with the most compared estimators, preferably with data."""
    compared = rows[rows["metric"].isin(summary.COMPARED) & ~rows["suite"].isin(summary.BY_SIZE)]
    rows = rows if compared.empty else compared
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
