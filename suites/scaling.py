"""How the cost of a training step grows: its time and memory when one size varies and the others are fixed.

The fixed sizes (the base) are those of the preset's network, on 32×32 images, with minibatches of `scaling.batch` and
the estimator's own number of samples. These sizes vary: the minibatch, the widening factor, the number of residual
blocks (each is a site of the width task), K (through the width step), and the number of samples if the estimator has
this option. A row's `point` is what varies and its `x` is the value. Rows of the metric `base` hold the base values.

Time is measured as in `suites.overhead`, in turn with a plain step of the same network. Memory is counted as in
`suites.memory`. The base is measured once and is part of every range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from results.table import row
from suites.labels import PLAIN
from suites.memory import count
from suites.overhead import WARM_UP, interleaved, ratio
from suites.settings import Group, Settings
from suites.suite import Job, OfSteps, Rows
from suites.tasks.base import Size

# what varies: the field and its values; a preset uses the first few of them
RANGES = {
    "batch": ("batch", (16, 32, 64, 128)),
    "widen": ("widen", (1, 2, 3, 4)),
    "blocks": ("depth", (10, 16, 22, 28)),
    "K": ("step", (16, 8, 4, 2, 1)),
    "samples": ("samples", (2, 4, 8, 16)),
}
OF_PLAIN = ("batch", "widen", "blocks")


class ScalingGroup(Group, name="scaling"):
    """How the cost of a step is measured as one size grows."""

    batch: int = Field(16, ge=1)
    """Images per step, where the minibatch does not vary."""
    values: int = Field(4, ge=2, le=5)
    """How many values of each range are measured."""
    pairs: int = Field(4, ge=2)
    """Interleaved pairs of steps at each value."""
    seconds: float = Field(5.0, ge=0)
    """Time in seconds after which no further pair starts."""
    budget: int = Field(400, ge=1)
    """Most evaluations of the objective at each value; a step that needs more is recorded as infeasible."""

    presets: ClassVar = {
        "smoke": {"values": 2, "pairs": 2, "budget": 60},
        "cpu": {"batch": 64, "values": 5, "pairs": 8, "seconds": 60.0, "budget": 3000},
        "paper": {"batch": 128, "values": 5, "pairs": 8, "seconds": 60.0, "budget": 20_000},
    }


class ScalingSettings(Settings):
    """Handed to the suite."""

    scaling: ScalingGroup


@dataclass(frozen=True)
class At:
    """The sizes at which a step is measured. `samples` is None if the estimator has no such option."""

    size: Size
    samples: int | None

    def get(self, name: str) -> int | None:
        """A field of the size, or the samples."""
        return self.samples if name == "samples" else int(getattr(self.size, name))

    def with_(self, name: str, value: int) -> At:
        """A copy with another value of a field."""
        if name == "samples":
            return replace(self, samples=value)
        return replace(self, size=self.size._replace(**{name: value}))


class Scaling(OfSteps):
    """Growth of time and memory."""

    name = "scaling"
    title = "growth of a step's time and memory"
    groups = (ScalingGroup,)
    settings = ScalingSettings
    roles = ("scaled",)
    baseline = alone = by_name = True
    measures: ClassVar = {
        "base": "",
        "seconds": "s",
        "time_ratio": "plain steps",
        "bytes": "bytes",
        "peak_ratio": "plain peaks",
    }

    def run(self, job: Job) -> Rows:
        """Measure all sizes. A size at which the estimator cannot work gives a row with the reason."""
        base = _base(job)
        sizes = list(_sizes(job, base))
        rows = [row("base", x, point=what) for what, x, at in sizes if at == base]
        measured: dict[At, Rows] = {}
        for done, (what, x, at) in enumerate(sizes):
            job.progress(f"scaling {what}", done, len(sizes))
            if at not in measured:
                measured[at] = _measure(job, at)
            rows += [found | {"point": what, "x": x} for found in measured[at]]
        return rows


def _base(job: Job) -> At:
    samples = None if job.label.name == PLAIN else dict(job.label.options).get("samples")
    return At(job.task.base()._replace(batch=job.settings.scaling.batch), samples)


def _sizes(job: Job, base: At) -> Iterator[tuple[str, int, At]]:
    """What varies, its value, and the resulting sizes, in ascending order."""
    for what, (name, values) in RANGES.items():
        held = base.get(name)
        if held is None or (job.label.name == PLAIN and what not in OF_PLAIN):
            continue
        found = {}
        possible = [(value, base.with_(name, value)) for value in values]
        # with one category per site there is nothing to estimate
        possible = [(value, at) for value, at in possible if what != "K" or min(_categories(job, at)) > 1]
        for value, at in [*possible[: job.settings.scaling.values], (held, base)]:
            x = max(_categories(job, at)) if what == "K" else value // 2 - 2 if what == "blocks" else value
            found[x] = at
        if len(found) > 1:  # for example, the width step does not affect the depth task
            yield from ((what, x, at) for x, at in sorted(found.items()))


def _categories(job: Job, at: At) -> tuple[int, ...]:
    return job.task.task.sizes_at(at.size)


def _measure(job: Job, at: At) -> Rows:
    """Time and memory at one size, or a row with the reason why there are none."""
    task, how, make = job.task, job.settings.scaling, None
    device = task.context.device
    try:
        if job.label.name != PLAIN:
            given = {} if at.samples is None else {"samples": at.samples}
            make = job.label.with_(**given).make
            evaluations = make(_categories(job, at)).evaluations
            if evaluations * (WARM_UP + how.pairs) > how.budget:
                needed = f"a step needs {evaluations} evaluations, too many for scaling.budget={how.budget}"
                raise ValueError(needed)
        plain_step, own_step = (task.workload("scaled", made, at.size) for made in (None, make))
        base, spent = interleaved(plain_step, own_step, device, how.pairs, how.seconds)
        peak, plain = (sum(count(job.on_cpu, "scaled", made, at.size).values()) for made in (make, None))
    except ValueError as error:
        return [row("seconds", None, n=0, status="infeasible", message=str(error))]
    except (torch.OutOfMemoryError, MemoryError) as error:  # at the largest sizes; the others are still useful
        return [row("seconds", None, n=0, status="oom", message=" ".join(str(error).split())[:300])]
    estimate, se = ratio(spent, base)
    n = len(spent)  # fewer than pairs if they take long
    # the standard error of the median, for normally distributed times
    median, error_of = float(np.median(spent)), float(np.std(spent, ddof=1)) * (np.pi / 2 / n) ** 0.5
    return [
        row("seconds", median, se=error_of, n=n, unit="s"),
        row("time_ratio", estimate, se=se, n=n, unit="plain steps"),
        row("bytes", peak, part="peak", unit="bytes"),
        row("peak_ratio", peak / plain, unit="plain peaks"),
    ]
