"""Time and multiply-accumulates of a training step, relative to a plain step of the same network.

The two steps alternate in one process, so that drifts of the machine's speed cancel in the ratio. A step is complete:
forward, backward, the estimator's own fits, all optimizers. q is uniform. For tasks whose objective is available
separately, the estimator's `backward` is also compared with one evaluation of the objective by hand, forward and
backward at a hard sample. If hard samples run on slices, the cost of a step depends on the width; it is then also timed
with q held at three widths.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from estimators import Estimator
from estimators.noise import gumbel_argmax, one_hot, uniform
from results.stats import ratio_interval
from results.table import row
from suites.labels import PLAIN, Label
from suites.settings import Group, Settings
from suites.suite import Job, OfSteps, Rows
from suites.tasks.base import Sites, Workload
from suites.tasks.granted import Granted

WARM_UP = 2
MANY = 10
"""With more evaluations than this a step is only timed at the uniform q, and its MACs are counted for one step."""
PARTS = (0.5, 0.75, 1.0)
"""Fractions of the network's width at which q is held."""


def macs(workload: Workload, steps: int) -> float:
    """Mean multiply-accumulates of a training step."""
    with FlopCounterMode(display=False) as counter:
        for _ in range(steps):
            workload.step()
    return counter.get_total_flops() / 2 / steps


def seconds(workload: Workload, device: torch.device, repeats: int) -> float:
    """Wall time of one step in seconds, the mean of `repeats` steps; on a GPU measured by events."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            workload.step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        workload.step()
    return (time.perf_counter() - begin) / repeats


class Alone:
    """A step that is an estimator's `backward`, or without one the objective, forward and backward at a hard sample."""

    def __init__(self, objective: Callable[[Sites], Tensor], logits: Sites, estimator: Estimator | None) -> None:
        self.objective, self.estimator = objective, estimator
        self.leaves = tuple(site.clone().requires_grad_() for site in logits)
        self.generator = torch.Generator(logits[0].device).manual_seed(0)
        if estimator is None:  # the leaves are a sample
            drawn = gumbel_argmax(logits, uniform(logits, self.generator))
            pairs = zip(drawn, logits, strict=True)
            self.leaves = tuple(one_hot(i, site.shape[-1], site.dtype).requires_grad_() for i, site in pairs)

    def step(self) -> None:
        for leaf in self.leaves:
            leaf.grad = None
        if self.estimator is None:
            loss = self.objective(self.leaves).sum()
            if loss.requires_grad:  # f may have neither slopes nor weights
                loss.backward()
        else:
            self.estimator.zero_grad()
            self.estimator.backward(self.objective, self.leaves, generator=self.generator)

    def tensors(self) -> dict[str, list[Tensor]]:
        return {"parameters": [], "optimizer": []}


def interleaved(
    base: Workload, own: Workload, device: torch.device, pairs: int, patience: float = math.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds per step of `base` and of `own`, `(n,)` each, measured in turn.

    n is `pairs`, or fewer (at least 2) if these take longer than `patience` seconds.
    """
    began = time.perf_counter()
    for _ in range(WARM_UP):
        if time.perf_counter() - began < patience / 10:
            seconds(base, device, 1), seconds(own, device, 1)
    # very short steps are timed in bundles
    repeats = max(1, int(0.01 / seconds(base, device, 1)))
    times: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(times) < pairs and (len(times) < 2 or time.perf_counter() - began < patience):
        times.append((seconds(base, device, repeats), seconds(own, device, repeats)))
    return tuple(np.array(times).T)


def ratio(spent: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """The geometric mean of the ratios, and its standard error, from that of the logarithms."""
    estimate = ratio_interval(spent, base).estimate
    return estimate, estimate * float(np.std(np.log(spent / base), ddof=1)) / len(base) ** 0.5


class OverheadGroup(Group, name="overhead"):
    """How a training step is timed."""

    pairs: int = Field(8, ge=2)
    """Interleaved pairs of steps."""
    seconds: float = Field(5.0, ge=0)
    """Time in seconds after which no further pair starts; rows record the number of pairs."""

    presets: ClassVar = {
        "smoke": {"pairs": 3},
        "cpu": {"pairs": 12, "seconds": 60.0},
        "study": {"pairs": 12, "seconds": 60.0},
        "paper": {"pairs": 12, "seconds": 60.0},
    }


class OverheadSettings(Settings):
    """Handed to the suite."""

    overhead: OverheadGroup


class Overhead(OfSteps):
    """Time and multiply-accumulates of a training step."""

    name = "overhead"
    title = "time of a training step"
    groups = (OverheadGroup,)
    settings = OverheadSettings
    roles = ("timed",)
    baseline = alone = True
    measures: ClassVar = {
        "time_ratio": "plain steps",
        "seconds": "s",
        "macs_ratio": "plain steps",
        "time_ratio_held": "plain steps",
        "macs_ratio_held": "plain steps",
        "backward_ratio": "evaluations by hand",
        "backward_per_evaluation": "evaluations by hand",
    }

    def run(self, job: Job) -> Rows:
        task, how = job.task, job.settings.overhead
        device, is_plain = task.context.device, job.label.name == PLAIN
        plain = task.workload("timed", None)
        own = plain if is_plain else task.workload("timed", job.label.make)
        estimator = None if is_plain else job.label.make(task.sizes("timed")).to(device)
        many = estimator is not None and estimator.evaluations > MANY
        job.progress("timing", 0, 1)
        base, spent = interleaved(plain, own, device, how.pairs, how.seconds)
        n = len(spent)
        estimate, se = ratio(spent, base)
        rows = [
            row("time_ratio", estimate, se=se, n=n, unit="plain steps"),
            row("seconds", float(np.median(spent)), n=n, unit="s"),
        ]
        if of_plain := macs(plain, 1):  # 0 for objectives without operations that are counted
            steps = 1 if many else max(how.pairs, 10)  # some estimators only tune at every tenth step
            rows.append(row("macs_ratio", macs(own, steps) / of_plain, n=steps, unit="plain steps"))
        if estimator is not None and not many:
            rows += _held(task, how, job.label, plain, of_plain)
        bare = None if estimator is None else task.alone()
        if bare is not None and estimator is not None:
            hand, alone = Alone(*bare, None), Alone(*bare, estimator)
            base, spent = interleaved(hand, alone, device, how.pairs, how.seconds)
            estimate, se = ratio(spent, base)
            n, per = len(spent), estimator.evaluations
            rows.append(row("backward_ratio", estimate, se=se, n=n, unit="evaluations by hand"))
            rows.append(row("backward_per_evaluation", estimate / per, se=se / per, n=n, unit="evaluations by hand"))
        return rows


def _held(task: Granted, how: OverheadGroup, label: Label, plain: Workload, of_plain: float) -> Rows:
    """Rows of a step with q held at fractions of the width, if its cost depends on the width."""
    steps = {part: step for part in PARTS if (step := task.held(label.make, part)) is not None}
    counted = {part: macs(step, 1) for part, step in steps.items()}
    if not steps or max(counted.values()) < 1.01 * min(counted.values()):
        return []  # the cost does not depend on the width
    device, rows = task.context.device, []
    for part, step in steps.items():
        base, spent = interleaved(plain, step, device, max(2, how.pairs // 2), how.seconds)
        estimate, se = ratio(spent, base)
        rows.append(row("time_ratio_held", estimate, se=se, n=len(spent), x=part, unit="plain steps"))
        rows.append(row("macs_ratio_held", counted[part] / of_plain, n=1, x=part, unit="plain steps"))
    return rows
