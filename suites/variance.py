"""Variance of one gradient estimate, at three points of a run, and the cost of the estimate.

The variance is the trace of the covariance of the logits' and of the weights' gradient, with minibatch and augmentation
drawn again for every estimate. For the logits it is also measured on one fixed minibatch. The cost is the counted
evaluations of the objective, and the multiply-accumulates of a training step (including fits) in plain steps. For
objectives without counted multiply-accumulates, the cost is the evaluations.
"""

from __future__ import annotations

from typing import ClassVar

from results.stats import variance_trace
from results.table import row
from suites.bias import measured
from suites.overhead import macs
from suites.suite import Job, Rows, Suite

STEPS = 10  # MACs are averaged over these: with slices they depend on the sample, and not every step tunes


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
        "entropy_at": "nats per site",
    }

    def run(self, job: Job) -> Rows:
        task, rows = job.task, []
        for name, state, m in measured(job):
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
            rows += [row(key, number, point=name, unit=unit) for key, number, unit in state if key == "entropy_at"]
        plain, own = macs(task.workload("step", None), 1), macs(task.workload("step", job.label.make), STEPS)
        if plain:
            rows.append(row("cost", own / plain, n=STEPS, unit="plain steps (MACs)"))
        else:  # no counted operations
            rows.append(row("cost", m.evaluations, n=STEPS, unit="evaluations"))
        return rows
