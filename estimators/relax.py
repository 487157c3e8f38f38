"""RELAX: a learned control variate.

    c(z) = r_ρ(σ_λ(z))                      by default: it sees the sample alone and costs no pass of the objective
    c(z) = f(σ_λ(z)) + r_ρ(σ_λ(z))          relaxed_objective=True, the form of the paper's larger tasks

in the estimator of `control_variate`; ρ and log λ descend the variance. r_ρ is s · MLP(2x − 1) on the concatenated
sites with one tanh layer and s initialised to 0, as in the paper's toy. Cost: 1 evaluation, or 3 with the relaxed
objective. Unbiased. Grathwohl, Choi, Wu, Roeder, Duvenaud 2018, arXiv:1711.00123.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from estimators.base import Objective, Sites
from estimators.control_variate import ControlVariate


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
        if hidden < 1:
            raise ValueError(f"hidden must be positive, got {hidden}")
        self.relaxed = self.relaxed_objective = relaxed_objective
        self.evaluations = 3 if relaxed_objective else 1
        self.scale = nn.Parameter(torch.zeros(()))
        self.network = nn.Sequential(_Linear(sum(self.sizes), hidden), nn.Tanh(), _Linear(hidden, 1))
        generator = torch.Generator(self.scale.device).manual_seed(0)
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)

    def surrogate(self, objective: Objective, z: Sites) -> Tensor:
        x = self.soft(z)
        flat = (2 * torch.cat(x, -1) - 1).to(self.scale.dtype)
        value = self.scale * self.network(flat).squeeze(-1)
        return value + objective.control(x) if self.relaxed_objective else value


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Nothing: torch's own initialisation would draw from the global generator."""
