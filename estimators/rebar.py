"""REBAR: the relaxed objective as the control variate of REINFORCE.

    c(z) = η f(σ_λ(z)),    σ_λ(z) = softmax(z / λ)

in the estimator of `control_variate`; η and log λ descend the variance. Cost: 3 evaluations (one hard, two relaxed), or
2 with coupled noise, and a second differentiation of the relaxed ones while tuning. Unbiased.
Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein 2017, arXiv:1703.07370.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from estimators.base import Objective, Sites
from estimators.control_variate import ControlVariate


class Rebar(ControlVariate):
    """REBAR with tuned η and λ.

    Args:
        sizes: K_l of each site.
        temperature: the initial λ.
        eta: the initial η.
        coupled: one noise for z and z̃, so that one relaxed evaluation serves both terms; else z̃ has its own.
    """

    relaxed = True

    def __init__(
        self, sizes: Sequence[int], *, temperature: float = 0.5, eta: float = 1.0, coupled: bool = False
    ) -> None:
        super().__init__(sizes, temperature, coupled)
        self.evaluations = 2 if coupled else 3
        if not isinstance(eta, int | float) or not math.isfinite(eta):
            raise ValueError(f"eta must be a finite number, got {eta!r}")
        self.eta = nn.Parameter(torch.tensor(float(eta)))

    def surrogate(self, objective: Objective, z: Sites) -> Tensor:
        return self.eta * objective.control(self.soft(z))
