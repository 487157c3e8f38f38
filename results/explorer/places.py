"""What is compared with what: the rows of one task, preset and data set."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import pandas as pd

from results import baselines, present, study_page, summary, table, words


class Place(NamedTuple):
    """A task, a preset and a data set."""

    task: str
    preset: str
    dataset: str

    @property
    def label(self) -> str:
        """The preset and the data set."""
        return summary.label(self.preset, self.dataset)

    @property
    def key(self) -> str:
        """As the page names it."""
        return f"{self.task}|{self.label}"

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Its rows, with those of the preset that read no data."""
        return present.of_context(frame[frame["task"] == self.task], self.preset, self.dataset)


def compared(whole: pd.DataFrame, own: Collection[str]) -> pd.DataFrame:
    """The rows that the page compares: without suites of no task, and without the study, which has its verdicts, unless
    there is nothing else.

    An estimator of a cell that is not one's own is marked where there are own cells of it on the task.

    Raises:
        TableError: there are none.
    """
    of_tasks = whole[~whole["suite"].isin(list(words.checks()))]
    if of_tasks.empty:
        raise table.TableError("no rows of a task, of which the page is")
    others = of_tasks[~study_page.of_study(of_tasks)]
    frame = baselines.spread(of_tasks if others.empty else others)
    if not own:
        return frame
    mine = frame["hash"].isin(list(own))
    pairs = set(frame.loc[mine, ["task", "estimator"]].itertuples(index=False, name=None))
    there = pd.Series([pair in pairs for pair in zip(frame["task"], frame["estimator"], strict=True)], frame.index)
    return frame.assign(estimator=frame["estimator"].mask(there & ~mine, frame["estimator"] + present.REFERENCE))


def places(frame: pd.DataFrame, task: str) -> list[Place]:
    """Those of a task, the one in which most estimators are compared first."""
    rows = frame[frame["task"] == task]
    first = present.main(rows)
    return [Place(task, *context) for context in sorted(present.contexts(rows), key=lambda one: one != first)]
