"""RELAX: a learned control variate.

    c(z) = r_ρ(σ_λ(z))                      the default: its input is the relaxed sample; no further evaluation of f
    c(z) = r_ρ(z)                           sees="noise": its input is the perturbed log-probabilities
    c(z) = f(σ_λ(z)) + r_ρ(…)               relaxed_objective=True
    c(z) = η [f(σ_λ(z)) + r_ρ(…)]           and eta: the authors' form at scale, with input z and coupled noise

in the estimator of `control_variate`, with ρ, η and λ tuned to reduce the variance. r_ρ is the network `Surrogate`, as
in the paper's toy problem. Cost: 1 evaluation; with the relaxed objective 3, or 2 with coupled noise. Unbiased.
Grathwohl, Choi, Wu, Roeder, Duvenaud 2018, arXiv:1711.00123.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from estimators.algebra import jacobian
from estimators.control_variate import ControlVariate, Tuning
from estimators.learned import Surrogate
from estimators.options import Count, Positive
from estimators.sitewise import Stacked, sitewise


class Relax(ControlVariate):
    """RELAX.

    Args:
        sizes: K_l of each site.
        temperature: the initial λ.
        relaxed_objective: add f(σ_λ(z)) to the surrogate.
        eta: the initial η; needs the relaxed objective. None: starts at 1 and is tuned by regression only.
        sees: the input of r_ρ, "sample" for σ_λ(z) or "noise" for z.
        coupled: use one noise for z and z̃, so that one relaxed evaluation serves both terms. Otherwise z̃ has its own.
        hidden: width of the surrogate's tanh layer.
        tuning: "descent", at every step and through second derivatives of f, or "regression", without second
            derivatives; the latter needs coupled noise and the relaxed objective. See `tuning`.
        every: with regression, λ is updated at every `every`-th step, which costs one more relaxed evaluation.
        part: n; the relaxed evaluations use the first of n parts of the data.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        temperature: Positive = 0.5,
        relaxed_objective: bool = False,
        eta: float | None = None,
        sees: Literal["sample", "noise"] = "sample",
        coupled: bool = False,
        hidden: Count = 10,
        tuning: Tuning = "descent",
        every: Count = 10,
        part: Count = 1,
    ) -> None:
        super().__init__(
            sizes,
            temperature=temperature,
            eta=eta,
            relaxed=relaxed_objective,
            coupled=coupled,
            tuning=tuning,
            every=every,
            part=part,
        )
        self.sees = sees
        self.learned = Surrogate(self.sizes, hidden)

    def correction(self, x: Stacked, z: Stacked, sharpness: Tensor) -> tuple[Tensor, Stacked]:
        if self.sees == "sample":
            value, slopes = self.learned.with_slope(x, sharpness)
            return value, sitewise(jacobian, x, slopes)
        # a forbidden category has z = −inf; 0.5 becomes 0 in the surrogate, which maps [0, 1] to [−1, 1]
        value, slopes = self.learned.with_slope(sitewise(lambda site: torch.where(site.isinf(), 0.5, site), z))
        return value, sitewise(lambda site, v: torch.where(site.isinf(), 0, v), z, slopes)
