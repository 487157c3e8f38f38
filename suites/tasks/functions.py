"""Objectives that are a function of the sample and nothing else, and the step of Adam that trains logits on one."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod

import torch
from torch import Tensor

import estimators
from estimators import Estimate, Estimator
from estimators.algebra import softmax
from estimators.sitewise import Stacked, layout_of, sitewise
from suites.tasks.base import Sites

LR = 0.01  # of Adam on φ, as in the toy of RELAX


class Function(ABC):
    """f of a sample `(*lead, K_l)` per site, smooth off the vertices, `(*lead)`."""

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


class Step:
    """A step of Adam on φ, with an estimator or (plain) by evaluating f forward and backward once by hand.

    Args:
        f: the objective.
        estimator: or None for plain.
        rows: independent estimates per step, of whose mean the step is made.
        control_lr: of Adam on what the estimator learns.
        seed: of the noise.
        device: of everything.
    """

    def __init__(
        self, f: Function, estimator: Estimator | None, rows: int, control_lr: float, seed: int, device: torch.device
    ) -> None:
        self.f, self.rows, self.estimator = f, rows, estimator
        self.layout = layout_of(f.sizes)  # sites of a size are one parameter: an optimizer takes its time for each
        self.leaves = [torch.zeros(len(at), f.sizes[at[0]], device=device, requires_grad=True) for at in self.layout]
        self.generator = torch.Generator(device).manual_seed(seed)
        self.optimizers = [torch.optim.Adam(self.leaves, lr=LR)]
        if estimator is not None and (control := list(estimator.parameters())):
            self.optimizers.append(torch.optim.Adam(control, lr=control_lr))

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        leaves = self.leaves
        if self.rows > 1:
            leaves = [leaf.expand(self.rows, *leaf.shape) for leaf in leaves]
        logits = Stacked(leaves, self.layout)
        if self.estimator is None:
            self.f(sitewise(softmax, logits)).sum().backward()
        else:
            self.estimator.backward(self.f, logits, generator=self.generator)
        if self.rows > 1:  # the mean, of gradients and not of f, in whose units the estimator learns
            for leaf in self.leaves:
                assert leaf.grad is not None
                leaf.grad /= self.rows
        for optimizer in self.optimizers:
            optimizer.step()

    @property
    def logits(self) -> Sites:
        """φ, `(K_l,)` per site, detached."""
        return Stacked((leaf.detach() for leaf in self.leaves), self.layout)

    def tensors(self) -> dict[str, list[Tensor]]:
        own = [] if self.estimator is None else [*self.estimator.parameters(), *self.estimator.buffers()]
        state = [t for o in self.optimizers for s in o.state.values() for t in s.values() if isinstance(t, Tensor)]
        return {"parameters": [*self.leaves, *own], "optimizer": state}
