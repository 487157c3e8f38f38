"""What an experiment of a paper is: its setting, its published numbers, and how they are measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from estimators import Estimator
from suites.labels import parse

KNOWN = {
    "paper": "read in the text of the paper",
    "code": "printed by the authors' own code, which they published with the paper",
    "formula": "recalled from the paper; it follows from a formula, and was computed again from it",
    "plot": "read off a plot of the paper",
    "recalled": "quoted from memory of the paper; not confirmed",
}
"""How a published number is known."""

Watch = Callable[[int], Iterable[int]]
"""From a number of steps n to 1 … n; shows the progress."""


class Number(NamedTuple):
    """A published number.

    Attributes:
        what: what it is.
        published: its value.
        within: its precision: half a unit of its last digit, or its sampling error.
        place: where in the paper it stands.
        known: how it is known, a key of `KNOWN`.
        note: what a reader must know to judge a difference.
    """

    what: str
    published: float
    within: float
    place: str
    known: str
    note: str = ""


@dataclass(frozen=True)
class Arm:
    """Numbers that one run gives.

    Attributes:
        name: the label of an estimator, or another name.
        numbers: the published numbers, in the order in which they are measured.
        exact: whether the run has no randomness; then it is done once.
        least: the least number of runs.
    """

    name: str
    numbers: tuple[Number, ...]
    exact: bool = False
    least: int = 1

    def seeds(self, asked: int) -> range:
        """The seeds of its runs, if this number of runs is asked for."""
        return range(1 if self.exact else max(self.least, asked))


@dataclass(frozen=True)
class Asked:
    """One run.

    Attributes:
        arm: the name of the arm.
        seed: seed of all random numbers.
        length: steps, draws or epochs.
        watch: shows the progress of steps or epochs.
        data_root: folder of the data sets; None: that of the environment, see `vmo.data`.
    """

    arm: str
    seed: int
    length: int
    watch: Watch
    data_root: Path | None = None


@dataclass(frozen=True, eq=False)
class Experiment:
    """An experiment of a paper.

    Attributes:
        name: its name on the command line.
        paper: authors and year.
        arxiv: number of the paper on arXiv.
        setting: the setting, as the paper describes it; Markdown.
        length: steps, draws or epochs of one run.
        unit: what `length` counts.
        arms: the numbers, in groups that one run gives.
        measure: does one run; returns one value per number of the arm.
        dataset: the data set that it needs, if any.
        long: whether it takes so long that it only runs if it is named.
        version: raise it when the measured values change.
    """

    name: str
    paper: str
    arxiv: str
    setting: str
    length: int
    unit: str
    arms: tuple[Arm, ...]
    measure: Callable[[Asked], Sequence[float]]
    dataset: str | None = None
    long: bool = False
    version: int = 1


def make(label: str, sizes: Sequence[int]) -> Estimator:
    """An estimator from its label."""
    return parse(label).make(sizes)
