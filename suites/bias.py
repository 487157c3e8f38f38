"""Bias of the gradient estimates, at three points of a run.

Logits: the mean estimate is compared with the exact gradient, or with an independent reference estimate. The measure is
the squared norm of the difference, corrected for the noise of both. Weights: the gradient at the samples that the
estimator trains on, minus the gradient at their argmax, paired on the same noise and minibatch. It is 0 for estimators
that train on hard samples; for Concrete it is the effect of soft samples on the weights.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import numpy as np
import torch

from results.stats import squared_norm
from results.table import row
from suites.labels import Label
from suites.measure import REFERENCE, Measurement, measure, reference
from suites.settings import Settings
from suites.suite import Job, Rows, Suite
from suites.tasks.base import Task, Truth


class Bias(Suite):
    """Bias of logits' and weights' gradients."""

    name = "bias"
    title = "bias of the gradient"
    roles = ("points", "truth", "estimates")
    uses = (REFERENCE, "exact")
    shares = "estimates"
    measures: ClassVar = {
        "bias_sq": "(objective per logit or weight)²",
        "bias_p": "probability",
        "gradient_sq": "(objective per logit or weight)²",
        "entropy_at": "nats per site",
        "progress": "fraction",
        "temperature": "",
    }

    def run(self, job: Job) -> Rows:
        truths, rows = references(job), []
        for name, state, m in measured(job):
            truth = truths[name]
            known = {"reference": truth[0]} if len(truth) == 1 else {"reference_estimates": truth}
            bias = squared_norm(m.logits, **known)
            unit = "(objective per logit)²"
            rows.append(row("bias_sq", bias.value, se=bias.se, n=bias.n, part="logits", point=name, unit=unit))
            rows.append(row("bias_p", bias.p, n=bias.n, part="logits", point=name, unit="probability"))
            if len(truth) == 1:
                rows.append(
                    row("gradient_sq", float((truth[0] ** 2).sum()), se=0.0, part="logits", point=name, unit=unit)
                )
            else:
                size = squared_norm(truth)
                rows.append(row("gradient_sq", size.value, se=size.se, n=size.n, part="logits", point=name, unit=unit))
            if m.weights is not None and m.hard_weights is not None:
                difference = m.weights[: len(m.hard_weights)] - m.hard_weights
                unit = "(objective per weight)²"
                bias, size = squared_norm(difference), squared_norm(m.hard_weights)
                rows.append(row("bias_sq", bias.value, se=bias.se, n=bias.n, part="weights", point=name, unit=unit))
                rows.append(row("bias_p", bias.p, n=bias.n, part="weights", point=name, unit="probability"))
                rows.append(row("gradient_sq", size.value, se=size.se, n=size.n, part="weights", point=name, unit=unit))
            rows += [row(key, value, point=name, unit=unit) for key, value, unit in state]
        return rows


State = list[tuple[str, float, str]]


def measured(job: Job) -> list[tuple[str, State, Measurement]]:
    """Name, state and measurement of every point. Cached for the last estimator, because two suites use it."""
    handed = job.task.handed
    return _measured(job.task.task, handed["points"], handed["estimates"], job.label, job.seed)


@functools.lru_cache(maxsize=1)
def _measured(
    task: Task, points: Settings, estimates: Settings, label: Label, seed: int
) -> list[tuple[str, State, Measurement]]:
    found = []
    for point in task.points(points, seed):
        estimator = label.make(tuple(site.shape[-1] for site in point.logits)).to(point.logits[0].device)
        task.context.progress(f"{label} at {point.name} q", 0, 1)
        m = measure(point, estimator, task.estimates(estimates, max(1, estimator.evaluations)), seed)
        entropy = np.mean([float(torch.special.entr(torch.softmax(site, -1)).sum()) for site in point.logits])
        state = [("entropy_at", float(entropy), "nats per site"), ("progress", point.progress, "fraction")]
        for key in ("log_temperature", "temperature"):
            held = getattr(estimator, key, None)
            if held is not None:
                value = float(getattr(held, "value", held).detach())
                state.append(("temperature", math.exp(value) if key.startswith("log") else value, ""))
                break
        found.append((point.name, state, m))
    return found


def references(job: Job) -> dict[str, np.ndarray]:
    """The reference gradient of every point, computed once and shared by all estimators."""
    return _references(job.task.task, job.task.handed["points"], job.task.truth, job.seed)


@functools.lru_cache(maxsize=2)
def _references(task: Task, points: Settings, truth: Truth | None, seed: int) -> dict[str, np.ndarray]:
    found = {}
    for point in task.points(points, seed):
        task.context.progress(f"reference gradient at {point.name} q", 0, 1)
        found[point.name] = reference(point, truth, task.context.cache, seed, of=task.identity())
    return found
