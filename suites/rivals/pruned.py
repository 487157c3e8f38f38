"""Training, pruning and fine-tuning: network slimming (Liu et al. 2017, arXiv:1708.06519) of hidden channels.

The full network trains first, with an L1 penalty λ Σ |γ_i| on the scales γ_i of the BN behind every hidden channel, by
its subgradient λ sign(γ_i). Then the channels with the largest |γ_i| are kept, over all blocks, and the rest of the run
trains these alone. There is one learning-rate schedule for the whole run.

|γ| is the criterion, because the weights of a convolution before BN have no scale: BN divides by it.

The paper has λ = 1e-4 for VGG and 1e-5 for residual networks, whose runs have about 60,000 steps. Here it is 1e-4,
because the runs of the study have 3,744.

With the fraction a of the run before the pruning, and the pruned network's MACs r as a fraction of the full network's,
the run costs a + (1 − a) r plain runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from estimators.options import Range
from suites.rivals.base import Rival, Start
from vmo.channels import blocks
from vmo.layers import at_least_fp32
from vmo.narrow import Narrowing
from vmo.wrn import Visits

MOMENTUM = 0.1  # of BN


class PrunedRun(Narrowing):
    """A run that is pruned on its way.

    Args:
        start: the start of the run.
        at: the fraction of the run before the pruning.
        sparsity: λ.
    """

    def __init__(self, start: Start, at: float, sparsity: float) -> None:
        super().__init__(start.network, start.dataset, start.recipe, target=start.target, seed=start.seed)
        self.sparsity, self.first = sparsity, round(at * self.steps)

    def scores(self) -> Sequence[Tensor]:
        return [block.bn2.weight.detach().abs() for block in blocks(self.network)]

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.kept is None and self.learner.step_count >= self.first:
            self.narrow()
        return super().step(images, labels)

    def gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.kept is not None:
            loss = self._of_kept(images, labels, self.kept)
            loss.backward()
            return loss
        loss = super().gradients(images, labels)
        for block in blocks(self.network):
            scale = block.bn2.weight
            assert scale.grad is not None
            scale.grad.add_(scale.detach().sign(), alpha=self.sparsity)
        return loss

    def _of_kept(self, images: Tensor, labels: Tensor, kept: tuple[int, ...]) -> Tensor:
        """The loss `()` of the kept channels, without computing the others."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            (logits,) = self.network.sliced(images, [kept], visits=Visits([kept], MOMENTUM))
        return F.cross_entropy(at_least_fp32(logits), labels)

    def cost(self) -> float:
        size, before = self.dataset.shape[-1], self.first / self.steps
        ratio = self.deployed().config.total_macs(size) / self.network.config.total_macs(size)
        return before + (1 - before) * ratio


@dataclass(frozen=True, kw_only=True)
class Pruned(Rival):
    """Training, pruning and fine-tuning.

    Attributes:
        at: the fraction of the run before the pruning.
        sparsity: λ of the L1 penalty on the BN scales.
    """

    at: Annotated[float, Range(gt=0, lt=1)] = 0.5
    sparsity: Annotated[float, Range(ge=0)] = 1e-4

    def trainer(self, start: Start) -> PrunedRun:
        return PrunedRun(start, self.at, self.sparsity)
