"""All experiments, in the order of the page."""

from __future__ import annotations

from suites.scripts.published import (
    arm,
    arsm,
    bernoulli,
    polynomial,
    reinmax_vae,
    relax,
    structured,
    sum_and_sample,
    unordered,
)
from suites.scripts.published.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        bernoulli,
        relax,
        arm,
        arsm,
        sum_and_sample,
        unordered,
        polynomial,
        reinmax_vae,
        structured,
    )
}
