"""REINFORCE with a leave-one-out baseline: S samples, where the baseline of each is the mean of f over the others.

    g_l = 1/(S−1) Σ_s (f_s − f̄)(z_{s,l} − p_l) = 1/(S−1) Σ_s (f_s − f̄) z_{s,l}

(the p_l term vanishes since Σ_s (f_s − f̄) = 0). Adding a constant to f changes nothing.
Cost: S evaluations, in one call. With the data cut into S parts it is one evaluation in total: each sample on its own
part (then f_s also differ by their data), or all samples on the first part. Both are unbiased for the mean of f over
the parts that are used. Kool, van Hoof, Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from estimators.algebra import weighted_sum
from estimators.base import Estimate, SeveralSamples, train_weights
from estimators.noise import Categories, race
from estimators.objective import Objective, Sites
from estimators.options import Several
from estimators.sitewise import sitewise


class Rloo(SeveralSamples):
    """REINFORCE with a leave-one-out baseline.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2, the leading dimension of the single call to the objective; weights train on their mean.
        parts: "whole": every sample on all data. "own": sample s on the s-th of S parts, one call for each. "first":
            all samples on the first of S parts. "own" and "first" raise a ValueError if the objective has no parts.
    """

    unbiased = True

    def __init__(
        self, sizes: Sequence[int], *, samples: Several = 2, parts: Literal["whole", "own", "first"] = "whole"
    ) -> None:
        super().__init__(sizes, samples=samples)
        self.parts = parts

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = race(sitewise(torch.exp, logits), noise)
        loss = self._losses(objective, index)
        # float64, so that a large constant in f does not round the deviations
        value = self._value(loss, index, logits).double()
        advantage = ((value - value.mean(0)) / (self.evaluations - 1)).to(loss.dtype)
        return Estimate(loss.mean(0), weighted_sum(advantage, index.corners))

    def _losses(self, objective: Objective, index: Categories) -> Tensor:
        """f of every sample, `(S, *rows)`, detached. Backpropagates their mean to the weights."""
        n = self.evaluations
        pieces, samples = [objective], [index]
        if self.parts != "whole":
            found = [objective.part(i, n) for i in range(n if self.parts == "own" else 1)]
            pieces = [piece for piece in found if piece is not None]
            if len(pieces) < len(found):
                raise ValueError(f"parts={self.parts!r} needs an objective whose data can be cut into {n} equal parts")
            if self.parts == "own":
                samples = [Categories((stack[s : s + 1] for stack in index.stacks), index.corners) for s in range(n)]
        losses = []
        for piece, sample in zip(pieces, samples, strict=True):  # one graph at a time
            loss = piece.hard(sample)
            train_weights(loss, 1 / n)
            losses.append(loss.detach())
        return torch.cat(losses)

    def _value(self, loss: Tensor, index: Categories, logits: Sites) -> Tensor:
        """The weight of each sample's score, `(S, *rows)`, before the baseline is subtracted."""
        return loss
