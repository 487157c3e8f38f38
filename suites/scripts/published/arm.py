"""The variance of ARM for one Bernoulli variable, over all values of its logit. ARM is ARSM with two categories."""

from __future__ import annotations

import torch

from estimators import Estimator
from estimators.arsm import Noise
from suites.scripts.published.experiment import Arm, Asked, Experiment, Number, make
from suites.tasks.base import Sites

GREATEST = (5**0.5 + 1) / 4
"""P(b = 1) ≥ 1/2 where the variance of ARM is greatest."""
GRID = 1000  # values of P(b = 1) that are tried


def f(sample: Sites) -> torch.Tensor:
    """f(0) = 0, f(1) = 1."""
    return sample[0][..., 1]


def variance(estimator: Estimator, p: float, points: int) -> float:
    """Var of the estimated derivative at P(b = 1) = p, by a midpoint rule over the single uniform variable."""
    pi = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    noise = Noise((torch.exp(-torch.stack([pi, 1 - pi], -1)),), torch.zeros((), dtype=torch.int64))
    logits = (torch.tensor([1 - p, p], dtype=torch.float64).log().expand(points, 2),)
    _, grads = estimator.estimate(f, logits, noise)
    return float(grads[0][:, 1].var(correction=0))


def measure(asked: Asked) -> list[float]:
    """The position of the greatest variance, its value, and its ratio to the variance of REINFORCE at θ = 0."""
    estimator = make("arsm", (2,))
    points = max(1, asked.length // 500)
    best = max(range(GRID // 2, GRID), key=lambda i: variance(estimator, i / GRID, points)) / GRID
    greatest = variance(estimator, GREATEST, asked.length)
    reinforce = torch.tensor([-0.0 / 2, 1.0 / 2], dtype=torch.float64).var(correction=0)  # −f(0)/2 or f(1)/2 at θ = 0
    return [best, greatest, greatest / float(reinforce)]


EXPERIMENT = Experiment(
    name="arm",
    paper="Yin and Zhou 2019",
    arxiv="1807.11143",
    setting=(
        "One Bernoulli variable with f(0) = 0 and f(1) = 1. The variance of ARM is integrated over its uniform "
        "variable, and the greatest value over all logits θ is sought. ARM is ARSM with two categories."
    ),
    length=1_000_000,
    unit="points of the integral",
    arms=(
        Arm(
            "arsm",
            (
                Number(
                    "P(b = 1) ≥ 1/2 of the greatest Var",
                    0.8090,
                    0.001,
                    "the variance of ARM",
                    "formula",
                    "This is (√5 + 1)/4.",
                ),
                Number("the greatest Var", 0.039788, 5e-7, "the variance of ARM", "formula"),
                Number(
                    "the greatest Var / Var of REINFORCE at θ = 0",
                    0.64,
                    0.005,
                    "the variance of ARM",
                    "formula",
                    "The paper states the bound 16/25.",
                ),
            ),
            exact=True,
        ),
    ),
    measure=measure,
)
