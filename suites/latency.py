"""Time that the network of a finished run takes for a minibatch, relative to the full network.

The network is that of the cell of the suite `accuracy` with the same estimator, settings and seed. Only its shape
matters here, so its weights are new. Both networks are in eval mode and run in turn, in one process.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from results.table import row
from suites.accuracy import Accuracy
from suites.labels import PLAIN, Label
from suites.learned import architecture
from suites.suite import Job, Rows, Suite
from suites.tasks.base import Task
from vmo.compact import BATCHES, latency


class Latency(Suite):
    """Time of the learned network."""

    name = "latency"
    version: ClassVar = Accuracy.version  # another network may be learned; for a change of this suite alone, add 1
    title = "time of the learned network"
    roles = ("run",)
    controls = True
    alone = True
    by_name = True
    follows = "accuracy"
    seeds: ClassVar = Accuracy.seeds
    measures: ClassVar = {"latency_ratio": "full networks"}

    def applies(self, task: Task, label: Label) -> bool:
        return label.name != PLAIN and task.plain and super().applies(task, label)

    def run(self, job: Job) -> Rows:
        """Measure the time. Returns a row for each of `vmo.compact.BATCHES`.

        Raises:
            suites.learned.Missing: the run that learns the network has not finished.
        """
        networks, shape = job.task.networks(architecture(job, job.label))
        rows = []
        for batch in BATCHES:
            images = torch.zeros(batch, *shape, device=job.task.context.device)
            (full, learned), n = latency(networks, images)
            rows.append(row("latency_ratio", learned / full, unit="full networks", x=batch, n=n))
        return rows
