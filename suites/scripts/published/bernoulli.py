"""The start of the toy problem of RELAX: the variance of REINFORCE, which is known exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from estimators import Estimator
from suites.scripts.published.experiment import Arm, Asked, Experiment, Number, make
from suites.tasks.base import Sites

T = 0.499
LABEL = "reinforce[baseline=none]"


def squared(sample: Sites) -> Tensor:
    """(b − t)², where b is the second of two categories."""
    return (sample[0][..., 1] - T) ** 2


def log_variance(estimator: Estimator, theta: Tensor, draws: int, generator: torch.Generator) -> float:
    """ln Var of the estimated derivative in θ, the logit of one Bernoulli variable."""
    logits = (torch.stack([torch.zeros_like(theta), theta]).expand(draws, 2),)
    was = estimator.training
    _, grads = estimator.eval().estimate(squared, logits, estimator.draw(logits, generator))
    estimator.train(was)
    return float(grads[0][:, 1].double().var().log())


def measure(asked: Asked) -> list[float]:
    """From the two outcomes, or from samples."""
    if asked.arm == "both outcomes":
        outcomes = torch.tensor([-0.5 * T**2, 0.5 * (1 - T) ** 2], dtype=torch.float64)
        return [float(outcomes.var(correction=0).log())]
    theta = torch.zeros((), dtype=torch.float64)
    return [log_variance(make(LABEL, (2,)), theta, asked.length, torch.Generator().manual_seed(asked.seed))]


def _number(how: str) -> Number:
    return Number(f"ln Var of REINFORCE, {how}", -4.1589, 0.00005, "the plot of ln Var, step 0", "formula")


EXPERIMENT = Experiment(
    name="bernoulli",
    paper="Grathwohl et al. 2018",
    arxiv="1711.00123",
    setting=(
        "The start of the toy problem of RELAX. f(b) = (b − t)² of one Bernoulli variable b with t = 0.499 and logit "
        "θ = 0. The derivative in θ has two possible estimates, so that its variance is known exactly."
    ),
    length=1_000_000,
    unit="draws",
    arms=(
        Arm("both outcomes", (_number("from both outcomes"),), exact=True),
        Arm("sampled", (_number("sampled"),), least=2),
    ),
    measure=measure,
)
