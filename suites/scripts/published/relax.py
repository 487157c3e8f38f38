"""The toy problem of RELAX: one Bernoulli variable, trained."""

from __future__ import annotations

import torch

from suites.scripts.published.bernoulli import log_variance, squared
from suites.scripts.published.experiment import Arm, Asked, Experiment, Number, make

STEPS = (500, 1000, 2500, 5000, 10_000)
DRAWS = 100_000  # estimates for a variance
READ_OFF = 0.5  # precision in nats of a number read off a plot of one seed
PUBLISHED: dict[str, tuple[float, ...]] = {
    "reinforce[baseline=none]": (-4.16, -4.18, -4.16, -4.20, -4.21),
    "rebar": (-4.11, -4.24, -4.34, -4.42, -4.69),
    "relax": (-9.9, -12.2, -12.6, -15.6, -15.9),
}
NOTE = (
    "The published curve is one run. In single runs of ours, ln Var of RELAX moves up and down by several nats between "
    "the steps shown. So single values differ. In both, RELAX is far below REINFORCE and REBAR."
)


def measure(asked: Asked) -> list[float]:
    """Trains with one sample per step. Shorter runs measure at the same fractions of the run."""
    estimator = make(asked.arm, (2,))
    theta = torch.zeros((), requires_grad=True)
    generator, other = (torch.Generator().manual_seed(asked.seed + offset) for offset in (0, 10_000))
    optimizer = torch.optim.Adam([theta, *estimator.parameters()], lr=0.01)
    at = [max(1, step * asked.length // STEPS[-1]) for step in STEPS]
    found: dict[int, float] = {}
    for step in asked.watch(asked.length):
        optimizer.zero_grad()
        estimator.backward(squared, (torch.stack([torch.zeros_like(theta), theta]),), generator=generator)
        optimizer.step()
        if step in at:
            found[step] = log_variance(estimator, theta.detach(), DRAWS, other)
    return [found[step] for step in at]


EXPERIMENT = Experiment(
    name="relax",
    paper="Grathwohl et al. 2018",
    arxiv="1711.00123",
    setting=(
        "f(b) = (b − t)² of one Bernoulli variable b with t = 0.499. Its logit θ starts at 0. Adam with learning rate "
        "0.01 trains θ and the control variate, with one sample per step. The control variate of RELAX is a network "
        "with one hidden layer of 10 tanh units. Shown is ln Var of the estimated derivative in θ."
    ),
    length=STEPS[-1],
    unit="steps",
    arms=tuple(
        Arm(
            label,
            tuple(
                Number(
                    f"ln Var of `{label}` at step {step:,}",
                    value,
                    READ_OFF,
                    "the plot of ln Var",
                    "plot",
                    NOTE if label == "relax" else "",
                )
                for step, value in zip(STEPS, values, strict=True)
            ),
        )
        for label, values in PUBLISHED.items()
    ),
    measure=measure,
)
