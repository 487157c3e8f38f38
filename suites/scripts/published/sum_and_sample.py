"""Rao-Blackwellised REINFORCE: some configurations are summed, one of the others is sampled."""

from __future__ import annotations

import torch

from suites.scripts.published.experiment import Arm, Asked, Experiment, Number, make
from suites.scripts.published.three_bernoullis import SETTING, SIZES, derivatives, distance, less_another

SAMPLED, SUMMED = "reinforce[baseline=none]", "exact"
NOTEBOOK = "the authors' notebook of Figure 2"
ERROR = "The published value is the variance of 10,000 draws. Its precision here is two standard errors of that."


def measure(asked: Asked) -> list[float]:
    """The exact derivative, or the variance of draws."""
    generator = torch.Generator().manual_seed(asked.seed)
    if asked.arm == "derivative":
        return [float(derivatives(make(SUMMED, SIZES), distance, 1, generator))]
    found = derivatives(make(asked.arm, SIZES), less_another(generator), asked.length, generator)
    return [float(found.var())]


EXPERIMENT = Experiment(
    name="sum_and_sample",
    paper="Liu et al. 2019",
    arxiv="1810.04777",
    setting=(
        f"{SETTING} The estimator sums over the k most probable configurations, and samples one of the others. Every "
        "evaluation has a baseline, f at an independent sample. k = 0 is REINFORCE. With k = 8 all randomness is in "
        "the baselines. For k between 1 and 7 the paper does not say which of the equally likely configurations are "
        "summed, so these are left out."
    ),
    length=200_000,
    unit="draws",
    arms=(
        Arm("derivative", (Number("the derivative", -0.0450, 0.00005, NOTEBOOK, "code"),), exact=True),
        Arm(SAMPLED, (Number("Var, k = 0", 0.012754, 0.0004, NOTEBOOK, "code", ERROR),), least=2),
        Arm(SUMMED, (Number("Var, k = 8", 0.00099250, 0.00003, NOTEBOOK, "code", ERROR),), least=2),
    ),
    measure=measure,
)
