"""One published number beside ours, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from suites.scripts.published.experiment import Number

TOO_WIDE = 20.0  # no verdict if our interval is wider than this times the precision of the published number


@dataclass(frozen=True)
class Line:
    """A published number and our values.

    Attributes:
        experiment: the name of the experiment.
        number: the published number.
        measured: our values, one per seed; empty if it was not run.
        length: steps, draws or epochs of our runs, in words.
        short: whether our runs were shorter than those of the paper.
    """

    experiment: str
    number: Number
    measured: Sequence[float]
    length: str = ""
    short: bool = False

    @property
    def mean(self) -> float:
        """The mean of our values; NaN if there are none."""
        return float(np.mean(self.measured)) if len(self.measured) else math.nan

    @property
    def error(self) -> float:
        """Half the width of the 95 % interval of our mean over seeds; NaN for fewer than two values."""
        if len(self.measured) < 2:
            return math.nan
        t = float(scipy.stats.t.ppf(0.975, len(self.measured) - 1))
        return t * float(np.std(self.measured, ddof=1)) / len(self.measured) ** 0.5

    @property
    def agrees(self) -> str:
        """Whether our mean agrees within both errors: "yes" or "no".

        "too few seeds" if our interval is too wide, "shorter run" if the numbers cannot be compared, and "not run".
        """
        if not len(self.measured):
            return "not run"
        if self.short:
            return "shorter run"
        error = 0.0 if math.isnan(self.error) else self.error
        within = self.number.within
        if error > TOO_WIDE * within:
            return "too few seeds"
        return "yes" if abs(self.mean - self.number.published) <= error + within else "no"

    @property
    def published_text(self) -> str:
        """The published value in text."""
        return f"{self.number.published:.15g}"

    @property
    def measured_text(self) -> str:
        """Our mean and its interval in text."""
        if not len(self.measured):
            return "–"
        digits = max(4, len(self.published_text.partition(".")[2]))
        error = "" if math.isnan(self.error) else f" ± {self.error:.2g}"
        return f"{self.mean:.{digits}f}{error}"

    def as_json(self) -> dict[str, Any]:
        """Everything, with None for what there is not."""
        finite = {
            name: value if math.isfinite(value) else None
            for name, value in (("mean", self.mean), ("error", self.error))
        }
        return {
            "experiment": self.experiment,
            **self.number._asdict(),
            "measured": list(self.measured),
            **finite,
            "length": self.length,
            "agrees": self.agrees,
        }
