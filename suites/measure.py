"""Gradient estimates at a point of a run, and the reference gradient that they should average to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from estimators import Estimator, Objective
from estimators.noise import one_hot
from estimators.objective import Wrapper, adapt
from suites.labels import parse
from suites.tasks.base import Point, Sites, Truth, seed_of
from vmo import partial

TOGETHER = 2**20
WEIGHED = 100
PER_MINIBATCH = 50
_FEW = 8
REFERENCE = "rloo[samples=8]"


@dataclass
class Measurement:
    """n estimates of one estimator at one point, one per row. Gradients of logits are projected to sum 0 per site.

    Args:
        logits: `(n, D)`, on fresh minibatches.
        conditional: `(n / 4, D)`, on one fixed minibatch; None if all minibatches are equal.
        weights: `(n, W)`, gradients of the weights on fresh minibatches; None without weights.
        hard_weights: `(m, W)`, m ≤ n: as `weights`, with the same noise and every sample replaced by its argmax.
        evaluations: counted evaluations of the objective per estimate.
    """

    logits: np.ndarray
    conditional: np.ndarray | None
    weights: np.ndarray | None
    hard_weights: np.ndarray | None
    evaluations: float


class Hardened(Wrapper):
    """An objective that moves every sample to its argmax vertex; gradients pass straight through."""

    def __call__(self, sample: Sites, /) -> Tensor:
        hard = (one_hot(x.argmax(-1), x.shape[-1], x.dtype) + (x - x.detach()) for x in sample)
        return self.inner(tuple(hard))


class Counted(Wrapper):
    """An objective that counts its evaluations. An evaluation on a part of the data counts as one."""

    def __init__(self, inner: Objective, counts: list[int] | None = None) -> None:
        super().__init__(inner)
        self._counts: list[int] = [] if counts is None else counts

    @property
    def count(self) -> int:
        """Evaluations so far, including those of parts."""
        return sum(self._counts)

    def _counted(self, value: Tensor) -> Tensor:
        self._counts.append(value.numel())
        return value

    def around_another(self, piece: Objective) -> Wrapper:
        return Counted(piece, self._counts)

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        loss, values = self.inner.around(index, others)
        return self._counted(loss), self._counted(values)

    def __call__(self, sample: Sites, /) -> Tensor:
        return self._counted(self.inner(sample))

    def hard(self, index: Sites, /) -> Tensor:
        return self._counted(self.inner.hard(index))

    def control(self, sample: Sites, /) -> Tensor:
        return self._counted(self.inner.control(sample))


def measure(point: Point, estimator: Estimator, n: int, seed: int) -> Measurement:
    """n estimates on fresh minibatches and n / 4 on a fixed one, in `eval()` mode. An adaptive estimator adapts first.

    If only the noise is random, many estimates are made in one call. Gradients of weights cannot be computed row by
    row, so there they are measured for at most `WEIGHED` estimates.
    """
    _settle(point, estimator)
    noise = _noise(point, "measure", seed)
    sizes = [site.shape[-1] for site in point.logits]

    counted = Counted(adapt(point.objective("fixed", 0), sizes, torch.float32))
    estimator.estimate(counted, point.logits, estimator.draw(point.logits, noise))
    evaluations = counted.count / max(1, math.prod(point.logits[0].shape[:-1]))

    if not point.stochastic:
        with frozen(point):
            together = _vectorised(point, estimator, n, noise)
        if not point.weights:
            return Measurement(together, None, None, None, evaluations)
        n = min(n, WEIGHED)
        _, weights, hard = _one_by_one(point, estimator, n, noise)
        return Measurement(together, None, weights, hard, evaluations)

    with frozen(point):
        fixed = point.objective("fixed", 0)
        draws = (estimator.draw(point.logits, noise) for _ in range(max(20, n // 4)))
        conditional = [_flat(estimator.estimate(fixed, point.logits, draw).grads) for draw in draws]
    logits, weights, hard = _one_by_one(point, estimator, n, noise)
    return Measurement(logits, np.stack(conditional), weights, hard, evaluations)


def fresh(point: Point, estimator: Estimator, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of `measure` on fresh minibatches: logits `(n, D)`, weights `(n, W)` and hard weights `(m, W)`."""
    _settle(point, estimator)
    return _one_by_one(point, estimator, n, _noise(point, "measure", seed))


def _settle(point: Point, estimator: Estimator) -> None:
    """Let an adaptive estimator adapt, and put the estimator into the state in which it is measured."""
    if estimator.learns:
        point.ride(estimator.train())
    estimator.eval().anneal(point.progress)


def _noise(point: Point, stream: str, seed: int) -> torch.Generator:
    return torch.Generator(point.logits[0].device).manual_seed(seed_of(stream, seed, point.name))


def _vectorised(point: Point, estimator: Estimator, n: int, noise: torch.Generator) -> np.ndarray:
    """n estimates, `(n, D)`, with at most about `TOGETHER` numbers per call."""
    shape = point.logits[0].shape[:-1]
    numbers = sum(site.numel() for site in point.logits) * max(1, estimator.evaluations)
    found = []
    for part in torch.arange(n).split(max(1, TOGETHER // numbers)):
        rows = tuple(site.expand(len(part), *site.shape) for site in point.logits)
        grads = estimator.estimate(point.objective("fresh", 0), rows, estimator.draw(rows, noise)).grads
        found.append(_flat(grads).reshape(len(part), -1) if shape else _flat(grads))
    return np.concatenate(found)


def _one_by_one(
    point: Point, estimator: Estimator, n: int, noise: torch.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n estimates on fresh minibatches with gradients of weights; for some of them also the gradients at the argmax."""
    sizes = [site.shape[-1] for site in point.logits]
    logits, weights, hard = [], [], []
    pairs = max(_FEW, n // 2) if estimator.relaxed else _FEW
    pairs = min(n, pairs)
    for i in range(n):
        draw = estimator.draw(point.logits, noise)
        objective = point.objective("fresh", i)
        grad, weight = _both(point, estimator, objective, draw)
        logits.append(grad)
        weights.append(weight)
        if i < pairs:
            inner = adapt(objective, sizes, torch.float32)
            hard.append(_both(point, estimator, Hardened(inner), draw)[1])
            if i + 1 == _FEW and all(map(np.array_equal, weights, hard)):
                pairs = _FEW  # its weights train on vertices only, so no more pairs are needed
    _clear(point)
    return np.stack(logits), np.stack(weights), np.stack(hard)


def _both(
    point: Point, estimator: Estimator, objective: Callable[[Sites], Tensor], draw: object
) -> tuple[np.ndarray, np.ndarray]:
    """One estimate's gradients `(D,)` of the logits and `(W,)` of the weights."""
    _clear(point)
    grads = estimator.estimate(objective, point.logits, draw).grads
    filled = [torch.zeros_like(w) if w.grad is None else w.grad for w in point.weights]
    return _flat(grads).ravel(), torch.cat([g.flatten() for g in filled]).cpu().numpy()


@contextmanager
def frozen(point: Point) -> Iterator[None]:
    """Disable gradients of the weights, where only those of the logits are needed."""
    wanted = [weight.requires_grad for weight in point.weights]
    for weight in point.weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight, flag in zip(point.weights, wanted, strict=True):
            weight.requires_grad_(flag)


def _clear(point: Point) -> None:
    for weight in point.weights:
        weight.grad = None


def _flat(grads: Sites) -> np.ndarray:
    """`(*rows, D)` in float64: all sites concatenated, each projected to sum 0."""
    return torch.cat([g.double() - g.double().mean(-1, keepdim=True) for g in grads], -1).cpu().numpy()


def reference(
    point: Point, truth: Truth | None, cache: Path | None, seed: int, by: str = REFERENCE, *, of: object
) -> np.ndarray:
    """The reference gradient: the exact one as `(1, D)`, or `(m, D)` independent estimates on fresh minibatches.

    Each estimate is an enumeration if the space has at most `truth.enumerate` configurations. Otherwise the unbiased
    estimator `by` makes it. Without minibatches there are `PER_MINIBATCH` times as many. The result is cached in
    `cache` under a hash of the point's bits and of `of`, the identity of its task: equal bits may have another f.
    """
    if point.gradient is not None:
        return _flat(point.gradient)[None]
    assert truth is not None  # only tasks whose points have exact gradients lack it
    sizes = [site.shape[-1] for site in point.logits]
    exact = math.prod(sizes) <= truth.enumerate
    m = truth.minibatches if point.stochastic else 1 if exact else PER_MINIBATCH * truth.minibatches
    label = parse("exact" if exact else by)
    name = repr((of, point.digest(), m, str(label), label.version, seed, [str(point.logits[0].device)]))
    path = None if cache is None else cache / f"reference-{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"
    if path is not None and path.exists():
        try:
            with np.load(path, allow_pickle=False) as archive:
                return archive["gradients"]
        except (OSError, ValueError, KeyError, EOFError):
            path.unlink()  # unreadable: compute it again
    estimator = label.make(sizes).to(point.logits[0].device)
    _settle(point, estimator)
    noise = _noise(point, "reference", seed)
    with frozen(point):
        if point.stochastic:
            draws = ((i, estimator.draw(point.logits, noise)) for i in range(m))
            gradients = np.stack(
                [_flat(estimator.estimate(point.objective("reference", i), point.logits, d).grads) for i, d in draws]
            )
        else:
            gradients = _vectorised(point, estimator, m, noise)
    if path is None:
        return gradients
    with partial.file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, gradients=gradients)
    return gradients
