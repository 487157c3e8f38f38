"""Gradient estimates at a point, and the gradient they should average to."""

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
    """Estimates of one estimator at one point, one row each; `logits` projected onto zero sum per site.

    Args:
        logits: `(n, D)` on fresh minibatches.
        conditional: `(n / 4, D)` on one fixed minibatch; None where minibatches do not differ.
        weights: `(n, W)` gradients of the weights on fresh minibatches; None without weights.
        hard_weights: `(m, W)`, m ≤ n: the same with every sample replaced by its own argmax, on the same noise.
        evaluations: evaluations of the objective per estimate, counted.
    """

    logits: np.ndarray
    conditional: np.ndarray | None
    weights: np.ndarray | None
    hard_weights: np.ndarray | None
    evaluations: float


class Hardened(Wrapper):
    """An objective that puts every sample on its nearest vertex; ∂f/∂sample passes straight through."""

    def __call__(self, sample: Sites, /) -> Tensor:
        hard = (one_hot(x.argmax(-1), x.shape[-1], x.dtype) + (x - x.detach()) for x in sample)
        return self.inner(tuple(hard))


class Counted(Wrapper):
    """An objective that counts its evaluations; one of a part of its data counts as one."""

    def __init__(self, inner: Objective, counts: list[int] | None = None) -> None:
        super().__init__(inner)
        self._counts: list[int] = [] if counts is None else counts

    @property
    def count(self) -> int:
        """Evaluations so far, of all parts."""
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
    """n estimates on fresh minibatches and n / 4 on a fixed one, in `eval()` mode, after riding along if it learns.

    Where all is fixed but the noise they are rows of a few calls, and gradients of weights, which no call can give row
    by row, are measured on at most `WEIGHED` of them.
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
    """What `measure` gives of fresh minibatches alone: logits `(n, D)`, weights `(n, W)` and hard weights `(m, W)`."""
    _settle(point, estimator)
    return _one_by_one(point, estimator, n, _noise(point, "measure", seed))


def _settle(point: Point, estimator: Estimator) -> None:
    """Let an estimator adapt, if it does, and put it in the state in which it is measured."""
    if estimator.learns:
        point.ride(estimator.train())
    estimator.eval().anneal(point.progress)


def _noise(point: Point, stream: str, seed: int) -> torch.Generator:
    return torch.Generator(point.logits[0].device).manual_seed(seed_of(stream, seed, point.name))


def _vectorised(point: Point, estimator: Estimator, n: int, noise: torch.Generator) -> np.ndarray:
    """n estimates, `(n, D)`, as many of them in one call as are `TOGETHER` numbers."""
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
    """n estimates on fresh minibatches with the gradients of weights, and some of them at their own argmax as well."""
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
                pairs = _FEW  # its weights see vertices alone
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
    """Without gradients of the weights, where only those of the logits are wanted."""
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
    """`(*rows, D)`: sites concatenated, each projected onto zero sum, in float64."""
    return torch.cat([g.double() - g.double().mean(-1, keepdim=True) for g in grads], -1).cpu().numpy()


def reference(point: Point, truth: Truth | None, cache: Path | None, seed: int, by: str = REFERENCE) -> np.ndarray:
    """`(m, D)` independent estimates of the gradient on fresh minibatches, or the exact one as `(1, D)`.

    Each is enumerated where the space has at most `truth.enumerate` configurations, and otherwise an estimate `by` an
    unbiased estimator, `PER_MINIBATCH` as many where no minibatch has to be drawn. Kept in `cache` under the hash of
    the point's own bits, so that it can never be taken for another's.
    """
    if point.gradient is not None:
        return _flat(point.gradient)[None]
    assert truth is not None  # which only a task goes without whose points all have exact gradients
    sizes = [site.shape[-1] for site in point.logits]
    exact = math.prod(sizes) <= truth.enumerate
    m = truth.minibatches if point.stochastic else 1 if exact else PER_MINIBATCH * truth.minibatches
    label = parse("exact" if exact else by)
    name = repr((point.digest(), m, str(label), label.version, seed, [str(point.logits[0].device)]))
    path = None if cache is None else cache / f"reference-{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"
    if path is not None and path.exists():
        try:
            with np.load(path, allow_pickle=False) as archive:
                return archive["gradients"]
        except (OSError, ValueError, KeyError, EOFError):
            path.unlink()  # a cache that cannot be read is computed again
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
