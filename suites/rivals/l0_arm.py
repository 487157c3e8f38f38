"""L0 regularisation with Bernoulli gates and the ARM gradient (Li, Ji 2019, arXiv:1904.04432).

ARM (Yin, Zhou 2019, arXiv:1807.11143) is ARSM for two categories. So every gate is a categorical variable of two
categories with the logits (−φ/2, φ/2), whose second one is "open", and an estimator of this project estimates the
gradient. It is unbiased. It evaluates the network with two antithetic samples of all gates, and weights train on both.
So a step costs two plain steps. `estimator=disarm` is the same with the noise of each pair integrated out.
Formulas: `suites.rivals.gates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

import estimators
from estimators import Estimator
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, layout_of
from suites.rivals.base import Rival, Start
from suites.rivals.gates import Gated
from suites.rivals.l0 import Probability

MOMENTUM = 0.1  # of BN


class GateObjective(Objective):
    """The loss on one minibatch as a function of all gates, each a site of two categories.

    A call updates BN's running statistics once, by the mean over its samples.

    Args:
        run: the run; its network trains.
        images: `(B, channels, H, W)`, normalised.
        labels: int64 `(B,)`.
    """

    def __init__(self, run: Gated, images: Tensor, labels: Tensor) -> None:
        self.run, self.images, self.labels = run, images, labels

    def __call__(self, sample: Sites, /) -> Tensor:
        return self._of_gates(torch.stack([site[..., 1] for site in sample], -1))

    def hard(self, index: Sites, /) -> Tensor:
        return self._of_gates(torch.stack(list(index), -1).to(self.images.dtype))

    def _of_gates(self, gates: Tensor) -> Tensor:
        """The loss `(*lead,)` at gates `(*lead, channels)`."""
        lead = gates.reshape(-1, gates.shape[-1])
        losses, share = [], MOMENTUM / len(lead)
        for n, one in enumerate(lead):
            # so that running statistics end at (1 − m) · old + m · (mean over samples)
            momentum = share / (1 - (len(lead) - 1 - n) * share)
            masks = self.run.gates.split(one)
            losses.append(self.run.loss(self.images, self.labels, masks=masks, momentum=momentum))
        return torch.stack(losses).view(gates.shape[:-1])


class BernoulliRun(Gated):
    """A run with Bernoulli gates.

    Args:
        start: the start of the run.
        open_at_start: σ(φ) at the beginning.
        estimator: of the gradient of the gates' logits.
    """

    def __init__(self, start: Start, open_at_start: float, estimator: Estimator) -> None:
        super().__init__(start, open_at_start)
        self.of_gates = estimator

    def sites(self) -> Sites:
        """The logits (−φ/2, φ/2) of every gate; their gradient reaches φ."""
        phi = self.gates.logits
        return Stacked((torch.stack([-phi / 2, phi / 2], -1),), layout_of((2,) * len(phi)))

    def gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = self.learner.backward(GateObjective(self, images, labels), self.sites(), self.of_gates)
        self.penalty_of_gates().backward()
        return loss

    def opened(self) -> Tensor:
        return self.gates.logits.sigmoid()

    def cost(self) -> float:
        return float(self.of_gates.evaluations)

    def factors(self) -> Sequence[Tensor] | None:
        return None


@dataclass(frozen=True, kw_only=True)
class L0Arm(Rival):
    """L0 regularisation with Bernoulli gates and the ARM gradient.

    Attributes:
        start: σ(φ) of every gate at the beginning.
        estimator: "arsm", which is ARM for two categories, or "disarm".
    """

    start: Probability = 0.9
    estimator: Literal["arsm", "disarm"] = "arsm"

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.estimator,)

    def trainer(self, start: Start) -> BernoulliRun:
        sizes: Any = (2,) * sum(start.network.config.widths)
        return BernoulliRun(start, self.start, estimators.get(self.estimator, sizes=sizes))
