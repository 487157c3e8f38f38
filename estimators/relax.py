"""RELAX: a learned control variate.

    c(z) = r_ρ(σ_λ(z))                      by default: it sees the sample alone and costs no pass of the objective
    c(z) = f(σ_λ(z)) + r_ρ(σ_λ(z))          relaxed_objective=True, the form of the paper's larger tasks

in the estimator of `control_variate`; ρ and log λ descend the variance. r_ρ is a `Surrogate`, as in the
paper's toy. Cost: 1 evaluation, or 3 with the relaxed
objective. Unbiased. Grathwohl, Choi, Wu, Roeder, Duvenaud 2018, arXiv:1711.00123.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from estimators.base import Objective, Sites
from estimators.control_variate import ControlVariate
from estimators.surrogate import Surrogate


class Relax(ControlVariate):
    """RELAX.

    Args:
        sizes: K_l of each site.
        temperature: the initial λ.
        relaxed_objective: add f(σ_λ(z)) to the surrogate.
        hidden: width of the surrogate's tanh layer.
    """

    def __init__(
        self, sizes: Sequence[int], *, temperature: float = 0.5, relaxed_objective: bool = False, hidden: int = 10
    ) -> None:
        super().__init__(sizes, temperature)
        self.relaxed = self.relaxed_objective = relaxed_objective
        self.evaluations = 3 if relaxed_objective else 1
        self.learned = Surrogate(self.sizes, hidden)

    def surrogate(self, objective: Objective, z: Sites) -> Tensor:
        x = self.soft(z)
        value: Tensor = self.learned(x)
        return value + objective.control(x) if self.relaxed_objective else value
