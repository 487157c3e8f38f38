"""DisARM for a bound of several samples: every sample has an antithetic partner, which stands in for it alone.

There are S independent pairs (z_s, z̃_s), each as in `disarm`. Let D be B + v_s of the bound (see `bound`) as a function
of sample s, with the others held. The gradient of E[B] is the sum over s of E[D(z_s) ∇log q(z_s)], which `disarm`
estimates from D(z_s) − D(z̃_s). The others are held at z_r once and at z̃_r once, and the two estimates are averaged.

The estimate is unbiased for the gradient of E[B]. It is biased for the gradient of E_q f, and so does not claim to be
unbiased. Weights of f train on the mean of B over both sets of samples. The loss that is returned is the mean of f.
Cost: 2 S evaluations, in one call. For two categories it is the estimator of Dong, Mnih, Tucker 2020, arXiv:2006.10680,
section 4, with v_s treated as B is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from estimators.base import Estimate, Estimator, train_weights
from estimators.bound import log_others, log_probabilities, log_weights
from estimators.noise import Categories, uniform
from estimators.objective import Objective, Sites
from estimators.options import Several
from estimators.sitewise import Stacked, stacked, stacks
from estimators.sticks import antithetic, sticks, to_logits


class DisarmBound(Estimator):
    """DisARM for a bound, by stick breaking.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2, the samples of the bound; weights train on it.
    """

    unbiased = False

    def __init__(self, sizes: Sequence[int], *, samples: Several = 2) -> None:
        super().__init__(sizes)
        self.samples = samples
        self.evaluations = 2 * samples

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        """Uniforms `(S, *rows, K_l)` for each site; one serves both samples of a pair."""
        return uniform(logits, generator, (self.samples,))

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        phi = stacked(logits)
        rows = [sticks(stack) for stack in phi.stacks]
        pairs = [antithetic(of, u) for of, u in zip(rows, stacks(noise, phi.layout), strict=True)]
        index = Categories((pair.drawn for pair in pairs), phi)  # (2, S, *rows)
        loss = objective.hard(index)
        log_w = log_weights(loss, index, log_probabilities(logits))
        train_weights(loss, (torch.softmax(log_w, 1) / 2).to(loss.dtype))
        # Σ w with the others from one set (first dimension) and sample s from the other (second): (2, 2, S, *rows)
        whole = torch.logaddexp(log_others(log_w, 1).unsqueeze(1), log_w.unsqueeze(0))
        d = (torch.exp(log_w.unsqueeze(0) - whole) - whole).mean(0)
        half = ((d[0] - d[1]) / 2).to(loss.dtype)[..., None, None]
        slopes = (to_logits(of, (half * pair.weight).sum(0)) for of, pair in zip(rows, pairs, strict=True))
        return Estimate(loss.detach().mean((0, 1)), Stacked(slopes, phi.layout))
