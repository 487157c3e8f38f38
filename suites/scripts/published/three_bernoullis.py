"""The toy problem of Liu et al. 2019, which Kool et al. 2020 use too: three Bernoulli variables that share a logit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from estimators import Estimator
from suites.tasks.base import Sites

TARGETS = (0.6, 0.51, 0.48)
SIZES = (2, 2, 2)
SETTING = (
    "f(b) = Σ (b_i − p_i)² over three Bernoulli variables with p = (0.6, 0.51, 0.48). They share one logit θ, which "
    "is 0. So all 8 configurations are equally likely. Shown are values of the estimated derivative in θ."
)


def distance(sample: Sites) -> Tensor:
    """Σ (b_i − p_i)², where b_i is the second of two categories."""
    b = torch.stack([site[..., 1] for site in sample], -1)
    return ((b - b.new_tensor(TARGETS)) ** 2).sum(-1)


def less_another(generator: torch.Generator) -> Callable[[Sites], Tensor]:
    """f(b) − f(b′), with an independent sample b′ for every evaluation: the baseline of the paper."""

    def f(sample: Sites) -> Tensor:
        shape = sample[0].shape[:-1]
        other = [torch.randint(2, shape, generator=generator) for _ in SIZES]
        return distance(sample) - distance([torch.nn.functional.one_hot(b, 2).to(sample[0].dtype) for b in other])

    return f


def derivatives(estimator: Estimator, f: Callable[[Sites], Tensor], draws: int, generator: torch.Generator) -> Tensor:
    """Estimates of the derivative in θ, `(draws,)`: the sum over the three variables."""
    logits = tuple(torch.zeros(draws, 2, dtype=torch.float64) for _ in SIZES)
    _, grads = estimator.eval().estimate(f, logits, estimator.draw(logits, generator))
    return torch.stack([grad[:, 1] for grad in grads]).sum(0)
