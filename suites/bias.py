"""Bias of the gradient estimates, at three points of a run.

Logits: the estimates' mean against enumeration, or against a reference estimate with its own error, on independent
minibatches: the squared norm of the difference without the bias that noise gives it. Weights: the gradient at the
samples that the estimator trains on minus that at their own argmax, paired on the same noise and minibatch. It is 0 for
an estimator that trains on hard samples, and is what Concrete does to the weights.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch

from results.stats import squared_norm
from results.table import row
from suites.engine.cell import Cell, Workshop
from suites.engine.labels import Label
from suites.measure import Measurement, measure, reference
from suites.tasks.base import Task


def run(cell: Cell, shop: Workshop) -> list[dict[str, Any]]:
    """The rows of a bias cell."""
    task = shop.task(cell.task)
    rows = []
    for name, state, m in measured(task, cell.label, cell.seed):
        truth = references(task, cell.seed)[name]
        known = {"reference": truth[0]} if len(truth) == 1 else {"reference_estimates": truth}
        bias = squared_norm(m.logits, **known)
        unit = "(objective per logit)²"
        rows.append(row("bias_sq", bias.value, se=bias.se, n=bias.n, part="logits", point=name, unit=unit))
        rows.append(row("bias_p", bias.p, n=bias.n, part="logits", point=name, unit="probability"))
        if len(truth) == 1:
            rows.append(row("gradient_sq", float((truth[0] ** 2).sum()), se=0.0, part="logits", point=name, unit=unit))
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


@functools.lru_cache(maxsize=1)
def measured(task: Task, label: Label, seed: int) -> list[tuple[str, list[tuple[str, float, str]], Measurement]]:
    """Name, state and measurement of every point; kept until another estimator is measured, as two suites read it."""
    found = []
    for point in task.points(seed):
        estimator = label.make(tuple(site.shape[-1] for site in point.logits)).to(point.logits[0].device)
        task.context.progress(f"{label} at {point.name} q", 0, 1)
        m = measure(point, estimator, task.estimates(max(1, estimator.evaluations)), seed)
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


@functools.lru_cache(maxsize=2)
def references(task: Task, seed: int) -> dict[str, np.ndarray]:
    """The reference gradients of every point, computed once and shared by all estimators."""
    found, preset = {}, task.preset
    for point in task.points(seed):
        task.context.progress(f"reference gradient at {point.name} q", 0, 1)
        found[point.name] = reference(point, preset.references, preset.enumerate, task.context.cache, seed)
    return found
