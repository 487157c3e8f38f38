"""Compares published numbers with ours: vmo-bench reproduce.

Each experiment runs as its paper describes it, with the code of this project. The table shows the published number,
ours with a 95 % interval over seeds, and whether they agree within that interval and the precision of the published
number. Numbers read off a plot of one seed have a tolerance of half a nat.

    bernoulli    f(b) = (b − t)² of one Bernoulli variable at θ = 0, t = 0.499: ln Var of REINFORCE (arXiv:1711.00123)
    arm          the largest variance of ARM over θ, for one Bernoulli variable (arXiv:1807.11143); ARM is ARSM with two
                 categories
    relax        the toy problem of RELAX (Figures 1 and 2): the same f, trained; ln Var of the estimators during the
    run polynomial   mean |b − 0.45|² over 128 binary variables after 8,000 steps of Adam (arXiv:2304.08612, Section
    5.1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from scipy import stats
from torch import Tensor

from estimators import Estimator
from estimators.arsm import Noise
from estimators.options import nearest
from suites.commands import tables
from suites.labels import parse
from suites.tasks.base import Sites
from suites.tasks.functions import Run
from suites.tasks.polynomial import Polynomial

T = 0.499
STEPS = (500, 1000, 2500, 5000, 10_000)
POLYNOMIAL_STEPS = 8000
TOO_WIDE = 20.0  # no verdict if our interval is wider than this times the tolerance of the published number
READ_OFF = 0.5  # tolerance in nats of a number read off a plot of one seed
DRAWS = 100_000  # estimates for a variance
RELAX: dict[str, tuple[float, ...]] = {
    "reinforce[baseline=none]": (-4.16, -4.18, -4.16, -4.20, -4.21),
    "rebar": (-4.11, -4.24, -4.34, -4.42, -4.69),
    "relax": (-9.9, -12.2, -12.6, -15.6, -15.9),
}
POLYNOMIAL: dict[str, tuple[float, float]] = {  # published number and its tolerance
    "exact": (0.2027, 0.00005),
    "reinmax": (0.2038, 0.00005),
    "gumbel_straight_through": (0.2459, 0.00005),
    "straight_through": (0.2475, 0.00005),
    "reinforce[baseline=none]": (0.24775, 0.0003),
}


class Line(NamedTuple):
    """One number: its source, the published value and its tolerance, and our values, one per seed."""

    experiment: str
    what: str
    published: float
    known_within: float
    measured: Sequence[float]

    @property
    def error(self) -> float:
        """Half the width of the 95 % interval of our mean over seeds; NaN for a single value."""
        if len(self.measured) < 2:
            return math.nan
        t = float(stats.t.ppf(0.975, len(self.measured) - 1))
        return t * float(np.std(self.measured, ddof=1)) / len(self.measured) ** 0.5

    @property
    def agrees(self) -> str:
        """Whether our mean agrees within both errors: "yes", "no", or "too few seeds" if our interval is too wide."""
        error = 0.0 if math.isnan(self.error) else self.error
        if error > TOO_WIDE * self.known_within:
            return "too few seeds"
        return "yes" if abs(float(np.mean(self.measured)) - self.published) <= error + self.known_within else "no"


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


def bernoulli(seeds: int) -> Iterator[Line]:
    """Exact from the two outcomes, and sampled with the estimator."""
    outcomes = torch.tensor([-0.5 * T**2, 0.5 * (1 - T) ** 2], dtype=torch.float64)
    exact = float(outcomes.var(correction=0).log())
    yield Line("bernoulli", "ln Var of reinforce, from both outcomes", -4.1589, 0.00005, [exact])
    theta = torch.zeros((), dtype=torch.float64)
    estimator = make("reinforce[baseline=none]", (2,))
    values = [
        log_variance(estimator, theta, 10 * DRAWS, torch.Generator().manual_seed(seed)) for seed in range(max(2, seeds))
    ]
    yield Line("bernoulli", "ln Var of reinforce, sampled", -4.1589, 0.00005, values)


def arm(seeds: int) -> Iterator[Line]:
    """The largest variance and its position, by a midpoint grid over the single uniform variable."""
    estimator = make("arsm", (2,))

    def variance(p: float, grid: int) -> float:
        pi = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
        noise = Noise((torch.exp(-torch.stack([pi, 1 - pi], -1)),), torch.zeros((), dtype=torch.int64))
        logits = (torch.tensor([1 - p, p], dtype=torch.float64).log().expand(grid, 2),)
        _, grads = estimator.estimate(lambda sample: sample[0][..., 1], logits, noise)
        return float(grads[0][:, 1].var(correction=0))

    best = max(range(500, 1000), key=lambda i: variance(i / 1000, 2000)) / 1000
    yield Line("arm", "P(b = 1) ≥ 1/2 of the greatest Var, (√5 + 1)/4", 0.8090, 0.001, [best])
    yield Line("arm", "Var there, of f(0) = 0, f(1) = 1", 0.039788, 5e-7, [variance((5**0.5 + 1) / 4, 10 * DRAWS)])


def relax(seeds: int) -> Iterator[Line]:
    """Adam with learning rate 0.01 for θ and the estimator's parameters, one sample per step."""
    for label, published in RELAX.items():
        values: dict[int, list[float]] = {step: [] for step in STEPS}
        for seed in range(seeds):
            estimator = make(label, (2,))
            theta = torch.zeros((), requires_grad=True)
            generator, other = (torch.Generator().manual_seed(seed + offset) for offset in (0, 10_000))
            optimizer = torch.optim.Adam([theta, *estimator.parameters()], lr=0.01)
            for step in watched(STEPS[-1], f"relax, {label}, seed {seed}"):
                optimizer.zero_grad()
                estimator.backward(squared, (torch.stack([torch.zeros_like(theta), theta]),), generator=generator)
                optimizer.step()
                if step in STEPS:
                    values[step].append(log_variance(estimator, theta.detach(), DRAWS, other))
        for step, value in zip(STEPS, published, strict=True):
            yield Line("relax", f"ln Var of {label} at step {step:,}", value, READ_OFF, values[step])


def polynomial(seeds: int) -> Iterator[Line]:
    """64 samples per step, two logits per variable, temperature 1, Adam with learning rate 1e-3."""
    f = Polynomial(2.0, 2, torch.device("cpu"))
    for label, (published, within) in POLYNOMIAL.items():
        values = []
        for seed in range(seeds if label != "exact" else 1):
            estimator = None if label == "exact" else make(label, f.sizes)
            trained = Run(f, estimator, rows=64, lr=1e-3, control_lr=1e-3, seed=seed)
            for _ in watched(POLYNOMIAL_STEPS, f"polynomial, {label}, seed {seed}"):
                if estimator is None:
                    trained.step_exactly()
                else:
                    trained.step()
            values.append(trained.value())
        yield Line("polynomial", f"E f after 8,000 steps of {label}", published, within, values)


def watched(steps: int, what: str) -> Iterable[int]:
    """1 … steps, with a progress bar on a terminal."""
    return track(range(1, steps + 1), what, transient=True, console=Console(stderr=True))


def make(label: str, sizes: Sequence[int]) -> Estimator:
    """An estimator from its label."""
    return parse(label).make(sizes)


EXPERIMENTS: dict[str, Callable[[int], Iterator[Line]]] = {
    "bernoulli": bernoulli,
    "arm": arm,
    "relax": relax,
    "polynomial": polynomial,
}


def run(names: Sequence[str], seeds: int, as_json: bool = False) -> int:
    """Run experiments and print the table. Returns the exit status. Raises ValueError for an unknown experiment."""
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"no experiment {name!r}{nearest(name, EXPERIMENTS)}; there are {', '.join(EXPERIMENTS)}")
    found = [line for name in names for line in EXPERIMENTS[name](seeds)]
    if as_json:
        tables.say_json([_as_json(line) for line in found])
        return 0
    header = ["experiment", "number", "published", "measured (95 %)", "seeds", "agrees"]
    tables.show("", header, [_texts(line) for line in found], keys=2)
    return 0


def _texts(line: Line) -> list[str]:
    error = "" if math.isnan(line.error) else f" ± {line.error:.2g}"
    digits = max(4, len(f"{line.published:g}".partition(".")[2]))
    mean = f"{np.mean(line.measured):.{digits}f}{error}"
    return [line.experiment, line.what, f"{line.published:g}", mean, str(len(line.measured)), line.agrees]


def _as_json(line: Line) -> dict[str, Any]:
    error = None if math.isnan(line.error) else line.error
    return {**line._asdict(), "mean": float(np.mean(line.measured)), "error": error, "agrees": line.agrees}
