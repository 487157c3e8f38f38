"""The toy: a joint, non-additive objective on three categoricals of different sizes, enumerable in 24 terms.

    f(x) = vᵀ tanh(W [x_1; x_2; x_3]) + x_{1,1} x_{2,2} x_{3,3},    sizes (2, 3, 4), fixed random W and v

Smooth off the vertices, so that every estimator works on it, and no sum over sites, so that none is exact on it by
luck.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

import estimators
from estimators import Estimator
from results.table import row
from suites.tasks.base import Make, Point, Sites, Task, seed_of
from vmo.checkpoint import Keeper
from vmo.space import Architecture
from vmo.train import Diverged

SIZES = (2, 3, 4)
POINTS = {"uniform": 0.0, "mid": 0.2, "peaked": 1.0}
LR = 0.01  # of Adam on φ, here and below as in the toy of RELAX


class Objective:
    """f, for samples with any leading dimensions."""

    def __init__(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(7)
        self.w = (1.5 * torch.randn(sum(SIZES), 8, generator=generator)).to(device)
        self.v = torch.randn(8, generator=generator).to(device)

    def __call__(self, sample: Sites) -> Tensor:
        lead = torch.broadcast_shapes(*(site.shape[:-1] for site in sample))
        x = torch.cat([site.expand(*lead, -1) for site in sample], -1)
        hidden = torch.tanh(x @ self.w.to(x.dtype)) @ self.v.to(x.dtype)
        return hidden + sample[0][..., 0] * sample[1][..., 1] * sample[2][..., 2]


class Step:
    """A step of Adam on φ, with an estimator or (plain) by evaluating f forward and backward once by hand."""

    def __init__(self, estimator: Estimator | None, control_lr: float, seed: int, device: torch.device) -> None:
        self.f = Objective(device)
        self.logits = tuple(torch.zeros(size, device=device, requires_grad=True) for size in SIZES)
        self.estimator = estimator
        self.generator = torch.Generator(device).manual_seed(seed)
        self.optimizers = [torch.optim.Adam(self.logits, lr=LR)]
        if estimator is not None and (control := list(estimator.parameters())):
            self.optimizers.append(torch.optim.Adam(control, lr=control_lr))

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if self.estimator is None:
            self.f(tuple(torch.softmax(site, -1) for site in self.logits)).backward()
        else:
            self.estimator.backward(self.f, self.logits, generator=self.generator)
        for optimizer in self.optimizers:
            optimizer.step()

    def tensors(self) -> dict[str, list[Tensor]]:
        own = [] if self.estimator is None else [*self.estimator.parameters(), *self.estimator.buffers()]
        state = [t for o in self.optimizers for s in o.state.values() for t in s.values() if isinstance(t, Tensor)]
        return {"parameters": [*self.logits, *own], "optimizer": state}


class Toy(Task):
    """The toy task."""

    name = "toy"
    plain = False
    settings: ClassVar[dict[str, tuple[str, ...]]] = {
        "bias": ("toy_steps", "toy_estimates", "ride", "control_lr"),
        "variance": ("toy_steps", "toy_estimates", "ride", "control_lr"),
        "memory": (),
        "overhead": ("overhead_pairs",),
        "accuracy": ("toy_steps", "control_lr"),
    }

    def sizes(self, suite: str) -> tuple[int, ...]:
        return SIZES

    def points(self, seed: int) -> Iterator[Point]:
        device = self.context.device
        f = Objective(device)
        step = Step(estimators.get("exact", sizes=SIZES), LR, 0, device)
        path = [tuple(site.detach().clone() for site in step.logits)]
        for _ in range(self.preset.toy_steps):
            step.step()
            path.append(tuple(site.detach().clone() for site in step.logits))
        for name, progress in POINTS.items():
            last = round(progress * self.preset.toy_steps)

            def ride(estimator: Estimator, name: str = name, last: int = last) -> None:
                control = list(estimator.parameters())
                optimizer = torch.optim.Adam(control, lr=self.preset.control_lr) if control else None
                generator = torch.Generator(device).manual_seed(seed_of("toy", "ride", seed, name))
                for i in range(last - self.preset.ride, last):
                    estimator.zero_grad()
                    logits = path[max(0, i)]
                    estimator.estimate(f, logits, estimator.draw(logits, generator))
                    if optimizer is not None:
                        optimizer.step()

            yield Point(name, progress, path[last], [], lambda stream, i: f, ride, stochastic=False)

    def workload(self, make: Make | None, suite: str) -> Step:
        return Step(None if make is None else make(SIZES), self.preset.control_lr, 0, self.context.device)

    def train(
        self,
        make: Make | None,
        seed: int,
        keeper: Keeper,
        *,
        learn: bool = True,
        architecture: Architecture | None = None,
    ) -> list[dict[str, Any]]:
        assert make is not None and learn and architecture is None
        device = self.context.device
        exact = estimators.get("exact", sizes=SIZES)
        step = Step(make(SIZES), self.preset.control_lr, seed, device)
        steps = self.preset.toy_steps
        every = max(1, steps // 40)
        curve = []
        for i in range(steps + 1):
            if i % every == 0 or i == steps:
                logits = tuple(site.detach() for site in step.logits)
                curve.append((i, float(exact.estimate(step.f, logits, ()).loss)))
                self.context.progress("training", i, steps)
            if i < steps:
                step.estimator.anneal(i / steps)  # type: ignore[union-attr]
                step.step()
        final = curve[-1][1]
        if final != final:
            raise Diverged("the logits are no longer finite")
        best = float(step.f(_all_one_hot(device)).min())
        return [
            row("objective", final, unit="objective"),
            row("objective_gap", final - best, unit="objective"),
            *(row("curve_objective", value, x=i, unit="objective") for i, value in curve),
        ]


def _all_one_hot(device: torch.device) -> Sites:
    grids = torch.meshgrid(*(torch.arange(size, device=device) for size in SIZES), indexing="ij")
    pairs = zip(grids, SIZES, strict=True)
    return tuple(torch.nn.functional.one_hot(grid.flatten(), size).float() for grid, size in pairs)
