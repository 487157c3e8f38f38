"""The VMO paper's Figure 2: what the Concrete relaxation makes of a width, at three temperatures.

One categorical over K = 16 widths; per temperature a few draws on common noise, as soft samples and soft masks, and as
their argmax. Made by the code that trains.
"""

from __future__ import annotations

from typing import Any

import torch

from estimators.noise import gumbel, one_hot, uniform
from results.table import row
from suites.engine.cell import Cell, Workshop
from vmo.masks import prefix_mask

K, DRAWS, TEMPERATURES = 16, 4, (1.0, 0.1, 0.01)


def run(cell: Cell, shop: Workshop) -> list[dict[str, Any]]:
    """The rows of a sampling cell."""
    position = torch.arange(1, K + 1)
    logits = -0.5 * ((position - 9.0) / 3) ** 2  # a discretised normal: a q part-way through training
    (noise,) = uniform((logits,), torch.Generator().manual_seed(cell.seed), (DRAWS,))
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
