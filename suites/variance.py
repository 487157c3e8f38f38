"""Variance of one gradient estimate, at three points of a run, and what the estimate costs.

The trace of the covariance of the logits' and of the weights' gradient, minibatch and augmentation redrawn for every
estimate; conditional on one minibatch, beside it, for the logits. Cost: evaluations of the objective, counted, and the
multiply-accumulates of a training step, fits included, in units of those of a plain step; or evaluations where the
objective has no multiply-accumulates that are counted.
"""

from __future__ import annotations

from typing import ClassVar

from results.stats import variance_trace
from results.table import row
from suites.bias import measured
from suites.overhead import macs
from suites.suite import Job, Rows, Suite

STEPS = 10  # over which MACs are averaged: those of a sliced sample depend on the sample, and not every step tunes


class Variance(Suite):
    """Variance of one estimate, and its cost."""

    name = "variance"
    title = "variance of one estimate"
    roles = ("points", "estimates", "step")
    shares = "estimates"
    measures: ClassVar = {
        "variance": "(objective per logit or weight)²",
        "mean_sq": "(objective per logit)²",
        "variance_conditional": "(objective per logit)²",
        "evaluations": "evaluations",
        "cost": "plain steps (MACs), or evaluations",
    }

    def run(self, job: Job) -> Rows:
        task, rows = job.task, []
        for name, _, m in measured(job):
            unit = "(objective per logit)²"
            value, se = variance_trace(m.logits)
            rows.append(row("variance", value, se=se, n=len(m.logits), part="logits", point=name, unit=unit))
            mean_sq = float((m.logits**2).sum(-1).mean())
            rows.append(row("mean_sq", mean_sq, n=len(m.logits), part="logits", point=name, unit=unit))
            if m.conditional is not None:
                value, se = variance_trace(m.conditional)
                n = len(m.conditional)
                rows.append(row("variance_conditional", value, se=se, n=n, part="logits", point=name, unit=unit))
            if m.weights is not None:
                value, se = variance_trace(m.weights)
                unit = "(objective per weight)²"
                rows.append(row("variance", value, se=se, n=len(m.weights), part="weights", point=name, unit=unit))
            rows.append(row("evaluations", m.evaluations, point=name, unit="evaluations"))
        plain, own = macs(task.workload("step", None), 1), macs(task.workload("step", job.label.make), STEPS)
        if plain:
            rows.append(row("cost", own / plain, n=STEPS, unit="plain steps (MACs)"))
        else:  # nothing that is counted
            rows.append(row("cost", m.evaluations, n=STEPS, unit="evaluations"))
        return rows
