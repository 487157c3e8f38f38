"""Functions of a sample that are an objective and nothing else, and a training run of one: φ alone, by Adam."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

import estimators
from estimators import Estimate, Estimator
from estimators.algebra import softmax
from estimators.sitewise import Stacked, layout_of, sitewise, stacks
from suites.tasks.base import Sites
from vmo.learner import Learner

LR = 0.01
"""Of Adam on φ, as in the toy of RELAX."""


class Function(ABC):
    """f of a sample `(*lead, K_l)` per site, smooth off the vertices, `(*lead)`."""

    broadcasts = True
    sizes: tuple[int, ...]
    device = torch.device("cpu")

    @abstractmethod
    def __call__(self, sample: Sites) -> Tensor:
        """f, for samples with any leading dimensions that broadcast against each other."""

    def expectation(self, logits: Sites) -> Estimate:
        """E_q f and its gradient, exactly; here by enumeration."""
        return self._exact.estimate(self, logits, ())

    @functools.cached_property
    def _exact(self) -> Estimator:
        return estimators.get("exact", sizes=self.sizes)

    def minimum(self) -> float:
        """The least f of all vertices; here by enumeration."""
        grids = torch.meshgrid(*(torch.arange(size) for size in self.sizes), indexing="ij")
        pairs = zip(grids, self.sizes, strict=True)
        corners = tuple(torch.nn.functional.one_hot(grid.flatten(), size).float() for grid, size in pairs)
        return float(self(tuple(corner.to(self.device) for corner in corners)).min())


def aligned(sample: Sites) -> Sites:
    """`(*lead, K_l)`, the leading dimensions broadcast against each other."""
    leads = {site.shape[:-1] for site in sample}
    if len(leads) == 1:  # nearly always, and a view of each of many sites takes longer than f
        return sample
    lead = torch.broadcast_shapes(*leads)
    return [site.expand(*lead, -1) for site in sample]


def concatenated(sample: Sites) -> Tensor:
    """`(*lead, Σ K)`, the sites side by side."""
    return torch.cat(tuple(aligned(sample)), -1)


class Run:
    """A training run, with an estimator or (plain) by evaluating f forward and backward once by hand.

    Args:
        f: the objective.
        estimator: or None for plain.
        rows: independent estimates per step, of whose mean the step is made.
        lr, control_lr: of Adam on φ and on what the estimator learns.
        seed: of the noise.
        device: of everything.
        steps: of the whole run, which temperatures follow; None: they stay.
    """

    def __init__(
        self,
        f: Function,
        estimator: Estimator | None,
        *,
        rows: int = 1,
        lr: float = LR,
        control_lr: float = LR,
        seed: int = 0,
        device: torch.device | str = "cpu",
        steps: int | None = None,
    ) -> None:
        self.f, self.rows = f, rows
        self.layout = layout_of(f.sizes)  # sites of a size are one parameter: an optimizer takes its time for each
        phi = torch.nn.ParameterList(torch.zeros(len(at), f.sizes[at[0]], device=device) for at in self.layout)
        self.leaves = list(phi)
        self.learner = Learner(
            {"phi": phi},
            {"phi": torch.optim.Adam(phi, lr=lr)},
            estimator=estimator,
            control_lr=control_lr,
            generators={"noise": torch.Generator(device).manual_seed(seed)},
            steps=steps,
        )

    def step(self) -> None:
        """One step along the estimate, or along the slope of f at the mean of q."""
        self.learner.step(self._gradients)

    def step_exactly(self) -> None:
        """One step along the exact gradient."""
        self.learner.step(self._exact)

    def _gradients(self) -> Tensor:
        """The problem, see `vmo.learner`."""
        leaves = self.leaves
        if self.rows > 1:
            leaves = [leaf.expand(self.rows, *leaf.shape) for leaf in leaves]
        logits = Stacked(leaves, self.layout)
        if self.learner.estimator is None:
            loss = self.f(sitewise(softmax, logits)).sum()
            loss.backward()
        else:
            loss = self.learner.backward(self.f, logits)
        if self.rows > 1:  # the mean, of gradients and not of f, in whose units the estimator learns
            for leaf in self.leaves:
                assert leaf.grad is not None
                leaf.grad /= self.rows
        return loss

    def _exact(self) -> Tensor:
        loss, grads = self.f.expectation(self.logits)
        for leaf, grad in zip(self.leaves, stacks(grads, self.layout), strict=True):
            leaf.grad = grad
        return loss

    @property
    def logits(self) -> Sites:
        """φ, `(K_l,)` per site, detached."""
        return Stacked((leaf.detach() for leaf in self.leaves), self.layout)

    def value(self) -> float:
        """E_q f; NaN where φ is not finite."""
        finite = all(bool(leaf.isfinite().all()) for leaf in self.leaves)
        return float(self.f.expectation(self.logits).loss) if finite else math.nan

    def tensors(self) -> dict[str, list[Tensor]]:
        """See `Learner.tensors`."""
        return self.learner.tensors()

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that training changes."""
        return self.learner.snapshot()

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a snapshot."""
        self.learner.restore(state)
