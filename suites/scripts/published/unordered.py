"""The unordered-set estimator on the toy problem of three Bernoulli variables."""

from __future__ import annotations

import torch

from suites.scripts.published.experiment import Arm, Asked, Experiment, Number, make
from suites.scripts.published.three_bernoullis import SETTING, SIZES, derivatives, distance

SOME, EVERY = "unordered[samples=4]", "unordered[samples=8]"


def measure(asked: Asked) -> list[float]:
    """Mean or variance of draws."""
    generator = torch.Generator().manual_seed(asked.seed)
    found = derivatives(make(asked.arm, SIZES), distance, asked.length, generator)
    return [float(found.mean())] if asked.arm == SOME else [float(found.mean()), float(found.var())]


EXPERIMENT = Experiment(
    name="unordered",
    paper="Kool et al. 2020",
    arxiv="2002.06043",
    setting=f"{SETTING} The estimator draws k different configurations. With k = 8 it has no randomness left.",
    length=50_000,
    unit="draws",
    arms=(
        Arm(
            SOME,
            (Number("mean, k = 4", -0.0450, 0.00005, "the authors' notebook of the toy problem", "code"),),
            least=2,
        ),
        Arm(
            EVERY,
            (
                Number("mean, k = 8", -0.0450, 0.00005, "the authors' notebook of the toy problem", "code"),
                Number("Var, k = 8", 0.0, 1e-6, "the toy problem", "formula"),
            ),
            exact=True,
        ),
    ),
    measure=measure,
)
