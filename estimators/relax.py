"""RELAX: a learned control variate.

    c(z) = r_ρ(σ_λ(z))                      by default: it sees the sample alone and costs no pass of the objective
    c(z) = r_ρ(z)                           sees="noise": the perturbed log-probabilities themselves
    c(z) = f(σ_λ(z)) + r_ρ(…)               relaxed_objective=True
    c(z) = η [f(σ_λ(z)) + r_ρ(…)]           with eta as well: what the authors run at scale, on raw z and coupled noise

in the estimator of `control_variate`; ρ, η and log λ descend the variance. r_ρ is a `Surrogate`, as in the paper's toy.
Cost: 1 evaluation, or 3 with the relaxed objective, 2 of coupled noise. Unbiased.
Grathwohl, Choi, Wu, Roeder, Duvenaud 2018, arXiv:1711.00123.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from estimators.base import Objective, Sites
from estimators.control_variate import ControlVariate
from estimators.sitewise import sitewise
from estimators.surrogate import Surrogate


class Relax(ControlVariate):
    """RELAX.

    Args:
        sizes: K_l of each site.
        temperature: the initial λ.
        relaxed_objective: add f(σ_λ(z)) to the surrogate.
        eta: the initial η, of the form with the relaxed objective; None: 1, and not tuned.
        sees: what r_ρ is given, "sample" for σ_λ(z) or "noise" for z.
        coupled: one noise for z and z̃, so that one relaxed evaluation serves both terms; else z̃ has its own.
        hidden: width of the surrogate's tanh layer.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        temperature: float = 0.5,
        relaxed_objective: bool = False,
        eta: float | None = None,
        sees: str = "sample",
        coupled: bool = False,
        hidden: int = 10,
    ) -> None:
        super().__init__(sizes, temperature, coupled)
        if sees not in ("sample", "noise"):
            raise ValueError(f"sees must be 'sample' or 'noise', got {sees!r}")
        self.relaxed = self.relaxed_objective = relaxed_objective
        if eta is not None and not (relaxed_objective and isinstance(eta, int | float) and math.isfinite(eta)):
            raise ValueError(f"eta must be a finite number, and needs relaxed_objective=True, got {eta!r}")
        self.sees = sees
        self.eta = None if eta is None else nn.Parameter(torch.tensor(float(eta)))
        self.evaluations = 1 + (2 - coupled) * relaxed_objective
        self.learned = Surrogate(self.sizes, hidden)

    def surrogate(self, objective: Objective, z: Sites) -> Tensor:
        x = self.soft(z)
        # the surrogate maps [0, 1] to [−1, 1]; a forbidden category has z = −inf, which nothing learned sees
        seen = x if self.sees == "sample" else sitewise(lambda site: torch.where(site.isinf(), 0.5, site), z)
        value: Tensor = self.learned(seen)
        if not self.relaxed_objective:
            return value
        value = value + objective.control(x)
        return value if self.eta is None else self.eta * value
