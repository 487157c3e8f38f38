"""A whole training run, and what it leaves: accuracy, size, and the state of q along the way. See `Task.train`.

Beside the estimators there are baselines, each by the same recipe, for the same epochs and from the same seed:

    plain              the full network
    random             q stays uniform; weights train on its samples, and one more sample is what is deployed (with a
                       target for its cost, the one that is most probable under Gumbel noise and meets it)
    uniform[of=NAME]   of full depth, every block cut by one factor, at the MACs of the network that NAME learned
    scratch[of=NAME]   the network that NAME learned, trained anew from initial weights of its own size
"""

from __future__ import annotations

from typing import ClassVar

from suites.labels import FIXED, PLAIN, RANDOM, parse
from suites.suite import Job, OfSteps, Rows
from vmo.space import Architecture


class Missing(ValueError):
    """There is no learned network to be a control of."""


class Accuracy(OfSteps):
    """Whole runs."""

    name = "accuracy"
    title = "whole training runs"
    roles = ("run",)
    baseline = controls = True
    seeds: ClassVar = {"smoke": 1, "quick": 3, "cpu": 2, "study": 5, "paper": 5}
    measures: ClassVar = {
        "loss": "nats",
        "accuracy": "fraction",
        "layers": "layers",
        "width_fraction": "fraction",
        "width_sd_blocks": "fraction",
        "parameters": "parameters",
        "macs": "MACs",
        "macs_ratio": "fraction",
        "block_width": "channels",
        "sampled_accuracy": "fraction",
        "entropy": "nats per site",
        "curve_loss": "nats",
        "curve_test_loss": "nats",
        "curve_accuracy": "fraction",
        "curve_width": "fraction",
        "curve_depth": "layers",
        "curve_entropy": "nats per site",
        "objective": "objective",
        "objective_gap": "objective",
        "curve_objective": "objective",
        "elbo": "nats",
        "distortion": "nats",
        "rate": "nats",
        "curve_elbo": "nats",
    }

    def run(self, job: Job) -> Rows:
        """The rows of a run.

        Raises:
            Missing: the run that this is a control of has not finished.
            vmo.learner.Diverged: see there.
        """
        task, label, seed, keeper = job.task, job.label, job.seed, job.keeper
        if label.name == PLAIN:
            return task.run(None, seed, keeper)
        if label.name == RANDOM:  # hard samples, at their cheapest
            return task.run(parse("reinforce[baseline=none]").make, seed, keeper, learn=False)
        if label.name in FIXED:
            learned = _learned(job)
            architecture = learned if label.name == "scratch" else task.cut_alike(learned)
            return task.run(None, seed, keeper, architecture=architecture)
        return task.run(label.make, seed, keeper)


def _learned(job: Job) -> Architecture:
    """What the run that a cell is a control of has come to, from its rows."""
    found = job.learned()
    widths = {row["x"]: int(row["value"]) for row in found if row["metric"] == "block_width"}
    if not widths:
        status = found[0]["status"] if found else "not there"
        status = "without a row of its widths" if status == "ok" else status
        raise Missing(
            f"needs what {job.label.of} learned on {job.task.name}, seed {job.seed}, and that run is {status}"
        )
    hidden = tuple(widths[block] for block in sorted(widths))
    return Architecture(len(hidden), hidden)
