"""The toy problem of ARSM: one variable of 30 categories, trained."""

from __future__ import annotations

import torch
from torch import Tensor

from suites.scripts.published.experiment import Arm, Asked, Experiment, Number, make
from suites.tasks.base import Sites

CATEGORIES = 30
SCALE = 30


def reward(sample: Sites) -> Tensor:
    """1/2 + c / (C R) at category c = 1 … C."""
    value = 0.5 + torch.arange(1, CATEGORIES + 1, dtype=sample[0].dtype) / (CATEGORIES * SCALE)
    return sample[0] @ value


def measure(asked: Asked) -> list[float]:
    """The expected reward after the last step of gradient ascent."""
    estimator = make("arsm", (CATEGORIES,))
    generator = torch.Generator().manual_seed(asked.seed)
    phi = torch.zeros(CATEGORIES)
    for _ in asked.watch(asked.length):
        _, grads = estimator.estimate(reward, (phi,), estimator.draw((phi,), generator))
        phi += grads[0]
    return [float(reward((torch.softmax(phi, -1),)))]


EXPERIMENT = Experiment(
    name="arsm",
    paper="Yin et al. 2019",
    arxiv="1905.01413",
    setting=(
        "One variable of C = 30 categories. f(c) = 1/2 + c / (C R) with R = 30 is maximised by plain gradient ascent "
        "with step size 1 from uniform probabilities, with one estimate per step. Shown is E f. Its maximum is 0.533."
    ),
    length=5000,
    unit="steps",
    arms=(
        Arm(
            "arsm",
            (
                Number(
                    "E f at the end",
                    0.533,
                    0.0005,
                    "the toy problem",
                    "recalled",
                    "The paper states this maximum, and shows in a plot that ARSM reaches it.",
                ),
            ),
        ),
    ),
    measure=measure,
)
