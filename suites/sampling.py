"""The VMO paper's Figure 2: draws of the Concrete relaxation of a width, at three temperatures.

There is one categorical over K = 16 widths. For each temperature there are a few draws with the same noise: soft
samples, soft masks, and their argmax. The code is the one that trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from estimators.noise import gumbel, one_hot, uniform
from results.table import row
from suites.labels import Label
from suites.suite import Job, Rows, Suite
from suites.tasks.base import Task
from vmo.masks import prefix_mask

K, DRAWS, TEMPERATURES = 16, 4, (1.0, 0.1, 0.01)


class Sampling(Suite):
    """Draws of a relaxed width."""

    name = "sampling"
    title = "draws of the Concrete relaxation"
    measures: ClassVar = {
        "probability": "",
        "soft_sample": "",
        "soft_mask": "",
        "hard_sample": "",
        "hard_mask": "",
    }

    def applies(self, task: Task, label: Label) -> bool:
        return label.name == "concrete" and task.name in ("width", "joint")

    def impossible(self, label: Label, sizes: Sequence[int]) -> str | None:
        return None

    def run(self, job: Job) -> Rows:
        position = torch.arange(1, K + 1)
        logits = -0.5 * ((position - 9.0) / 3) ** 2  # a discretised normal: a q part-way through training
        (noise,) = uniform((logits,), torch.Generator().manual_seed(job.seed), (DRAWS,))
        perturbed = logits + gumbel(noise)
        hard = one_hot(perturbed.argmax(-1), K, torch.float32)
        rows = []
        for t in TEMPERATURES:
            soft = torch.softmax(perturbed / t, -1)
            panels = {
                "soft_sample": soft,
                "soft_mask": prefix_mask(soft),
                "hard_sample": hard,
                "hard_mask": prefix_mask(hard),
            }
            point = f"{t:g}"
            for x, p in zip(position.tolist(), torch.softmax(logits, -1).tolist(), strict=True):
                rows.append(row("probability", p, point=point, x=x, part="0"))
            for metric, values in panels.items():
                for draw, line in enumerate(values.tolist()):
                    rows += [row(metric, v, part=str(draw), point=point, x=x) for x, v in enumerate(line, 1)]
        return rows
