"""Objectives that are plain functions of a sample, and a training run on one: only φ, by Adam."""

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
"""Learning rate of Adam for φ, as in the toy problem of RELAX."""


class Function(ABC):
    """f, `(*lead)`, of a sample `(*lead, K_l)` per site. It is smooth off the vertices."""

    broadcasts = True
    sizes: tuple[int, ...]
    device = torch.device("cpu")

    @abstractmethod
    def __call__(self, sample: Sites) -> Tensor:
        """f of a sample. Leading dimensions of the sites broadcast against each other."""

    def expectation(self, logits: Sites) -> Estimate:
        """E_q f and its gradient, exact; by default by enumeration."""
        return self._exact.estimate(self, logits, ())

    @functools.cached_property
    def _exact(self) -> Estimator:
        return estimators.get("exact", sizes=self.sizes)

    def minimum(self) -> float:
        """The minimum of f over all vertices; by default by enumeration."""
        grids = torch.meshgrid(*(torch.arange(size) for size in self.sizes), indexing="ij")
        pairs = zip(grids, self.sizes, strict=True)
        corners = tuple(torch.nn.functional.one_hot(grid.flatten(), size).float() for grid, size in pairs)
        return float(self(tuple(corner.to(self.device) for corner in corners)).min())


def aligned(sample: Sites) -> Sites:
    """The sample `(*lead, K_l)` with leading dimensions broadcast to one shape."""
    leads = {site.shape[:-1] for site in sample}
    if len(leads) == 1:  # nearly always; making views of many sites would take longer than f
        return sample
    lead = torch.broadcast_shapes(*leads)
    return [site.expand(*lead, -1) for site in sample]


def concatenated(sample: Sites) -> Tensor:
    """All sites concatenated, `(*lead, Σ K)`."""
    return torch.cat(tuple(aligned(sample)), -1)


class Run:
    """A training run of φ.

    Args:
        f: the objective.
        estimator: the estimator; None (plain): a step evaluates f and its slope at the mean of q.
        rows: independent estimates per step; the step uses their mean.
        lr: learning rate of Adam for φ.
        control_lr: learning rate of Adam for the estimator's parameters.
        seed: seed of the noise.
        device: the device of everything.
        steps: steps of the whole run, for temperature schedules; None: temperatures stay.
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
        self.layout = layout_of(f.sizes)  # sites of one size are one parameter, which makes the optimizer faster
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
        """One step with the estimate, or (plain) with the slope of f at the mean of q."""
        self.learner.step(self._gradients)

    def step_exactly(self) -> None:
        """One step with the exact gradient."""
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
        if self.rows > 1:  # average gradients and not f, so that the estimator learns in the units of f
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
        """E_q f; NaN if φ is not finite."""
        finite = all(bool(leaf.isfinite().all()) for leaf in self.leaves)
        return float(self.f.expectation(self.logits).loss) if finite else math.nan

    def tensors(self) -> dict[str, list[Tensor]]:
        """See `Learner.tensors`."""
        return self.learner.tensors()

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that training changes."""
        return self.learner.snapshot()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a snapshot."""
        self.learner.restore(state)
