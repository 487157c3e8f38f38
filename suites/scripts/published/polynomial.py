"""The polynomial of the ReinMax paper, p = 2: 128 binary variables, trained."""

from __future__ import annotations

import torch

from suites.scripts.published.experiment import Arm, Asked, Experiment, Number, make
from suites.tasks.functions import Run
from suites.tasks.polynomial import Polynomial

STEPS = 8000
LAST = 40  # shown is the mean over the last 1/40 of the steps
PUBLISHED: dict[str, tuple[float, float]] = {  # published number and its precision
    "exact": (0.2027, 0.00005),
    "reinmax": (0.2038, 0.00005),
    "gumbel_straight_through": (0.2459, 0.00005),
    "straight_through": (0.2475, 0.00005),
    "reinforce[baseline=none]": (0.24775, 0.0003),
}


def measure(asked: Asked) -> list[float]:
    """E f, averaged over the last 200 steps, as the authors' code averages its loss."""
    f = Polynomial(2.0, 2, torch.device("cpu"))
    estimator = None if asked.arm == "exact" else make(asked.arm, f.sizes)
    trained = Run(f, estimator, rows=64, lr=1e-3, control_lr=1e-3, seed=asked.seed)
    last = max(1, asked.length // LAST)
    values = []
    for step in asked.watch(asked.length):
        if estimator is None:
            trained.step_exactly()
        else:
            trained.step()
        if step > asked.length - last:
            values.append(trained.value())
    return [sum(values) / len(values)]


EXPERIMENT = Experiment(
    name="polynomial",
    paper="Liu et al. 2023",
    arxiv="2304.08612",
    setting=(
        "f(b) = mean |b_i − 0.45|² over 128 binary variables with two logits each. Adam with learning rate 1e-3 trains "
        "the logits for 8,000 steps. Every step averages 64 estimates. All temperatures are 1. Shown is E f, averaged "
        "over the last 200 steps, which is what the authors' code prints. The published values are means of ten runs."
    ),
    length=STEPS,
    unit="steps",
    arms=tuple(
        Arm(
            label,
            (Number(f"E f at the end, `{label}`", value, within, "Section 5.1", "recalled"),),
            exact=label == "exact",
        )
        for label, (value, within) in PUBLISHED.items()
    ),
    measure=measure,
)
