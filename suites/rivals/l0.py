"""L0 regularisation with hard concrete gates (Louizos, Welling, Kingma 2018, arXiv:1712.01312).

The gates are reparametrised: weights and φ learn from one backward pass through one sample of all gates per minibatch.
So a step costs as much as a plain step. Formulas: `suites.rivals.gates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from estimators.noise import uniform
from estimators.options import Range
from suites.rivals.base import Rival, Start
from suites.rivals.gates import Gated, hard_concrete, open_probability, stretched

Probability = Annotated[float, Range(gt=0, lt=1)]


class HardConcreteRun(Gated):
    """A run with hard concrete gates."""

    def gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.gates.logits
        (u,) = uniform((logits,), self.noise)
        loss = self.loss(images, labels, masks=self.gates.split(hard_concrete(logits, u)))
        (loss + self.penalty_of_gates()).backward()
        return loss

    def opened(self) -> Tensor:
        return open_probability(self.gates.logits)

    def factors(self) -> Sequence[Tensor]:
        return self.gates.split(stretched(self.gates.logits.detach().sigmoid()))

    def cost(self) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class L0(Rival):
    """L0 regularisation with hard concrete gates.

    Attributes:
        start: σ(φ) of every gate at the beginning.
    """

    start: Probability = 0.9

    def trainer(self, start: Start) -> HardConcreteRun:
        return HardConcreteRun(start, self.start)
