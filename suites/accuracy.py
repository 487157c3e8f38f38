"""A whole training run and its result: accuracy and size of the network, and q during the run. See `Task.run`.

Besides estimators it measures baselines, each with the same recipe, number of epochs and seed:

    plain              the full network
    random             q stays uniform; weights train on its samples, and one more sample is the final network (with a
                       target for the cost: the most probable one under Gumbel noise that meets the target)
    uniform[of=NAME]   full depth, with all blocks narrowed by one factor to the MACs of the network that NAME learned
    scratch[of=NAME]   the network that NAME learned, trained again from new initial weights

On the width task it also measures rivals of VMO: other ways to a narrower network, see `suites.rivals`.
"""

from __future__ import annotations

from typing import ClassVar

from suites.labels import FIXED, PLAIN, RANDOM
from suites.learned import architecture
from suites.rivals.slimmable import hard_samples
from suites.suite import Job, OfSteps, Rows


class Accuracy(OfSteps):
    """Whole training runs."""

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
        "training_cost": "plain runs",
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
        "nll": "nats",
    }

    def run(self, job: Job) -> Rows:
        """Run the training. Returns its rows.

        Raises:
            suites.learned.Missing: the run that learns the network of a control has not finished.
            vmo.learner.Diverged: the run has diverged.
        """
        task, label, seed, keeper = job.task, job.label, job.seed, job.keeper
        if label.name == PLAIN:
            return task.run(None, seed, keeper)
        if label.name == RANDOM:
            return task.run(hard_samples, seed, keeper, learn=False)
        if label.rival is not None:
            return task.run(None, seed, keeper, rival=label.rival)
        if label.name in FIXED:
            learned = architecture(job, label.of)
            network = learned if label.name == "scratch" else task.cut_alike(learned)
            return task.run(None, seed, keeper, architecture=network)
        return task.run(label.make, seed, keeper)
