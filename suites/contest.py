"""The contest: the mean squared error of a gradient estimate at equal compute, for biased and unbiased estimators.

    MSE(C) = bias² + variance · cost / C,    C: compute in plain training steps

It is measured for ∂φ E_minibatch E_q f and for E ∂f/∂w, at fixed weights of a part-trained network, with BN in training
mode on whole minibatches. Minibatch and augmentation are drawn again for every estimate. Estimators adapt on
minibatches of earlier steps. The cost is that of the whole training step at this q, in plain steps of the same network,
timed in turn. Rows hold the parts of MSE(C); `results.contest` combines them.

It also measures the gain from a gradient: with frozen weights, φ follows the estimator (Adam) from a uniform q for as
much time as a given number of plain steps takes. The gain is the decrease of E_q f + penalty on fixed minibatches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from estimators import Estimator
from estimators.noise import gumbel_argmax, uniform
from estimators.objective import adapt
from results.stats import squared_norm, variance_trace
from results.table import row
from suites.labels import Label
from suites.measure import fresh, frozen, reference
from suites.overhead import interleaved, ratio, seconds
from suites.settings import Group, Settings
from suites.suite import Job, Rows, Suite
from suites.tasks.base import Point, Sites, Task, Workload, seed_of
from vmo.learner import Learner

REFERENCE = "sweep[samples=3]"
"""The unbiased estimator with the least error. It estimates the reference gradient, on separate minibatches."""
START = "uniform"
"""The point where the optimisation of φ starts."""
BUNDLE = 5
"""Steps of φ between two timings of a plain step."""
MINIBATCHES, SAMPLED = 24, 4
"""Minibatches on which the gain is measured, and architectures drawn for each."""


class Rates(Settings):
    """Learning rates for the optimisation of φ alone."""

    phi_lr: float = Field(0.05, ge=0)
    control_lr: float = Field(0.01, ge=0)


class ContestGroup(Group, name="contest"):
    """The error of a gradient at equal compute."""

    estimates: int = Field(100, ge=2)
    """Estimates per point."""
    steps: int = Field(60, ge=1)
    """Time for which φ alone is optimised, in plain steps."""
    runs: int = Field(2, ge=1)
    """Number of optimisations of φ alone."""
    pairs: int = Field(8, ge=2)
    """Interleaved pairs of steps that are timed."""
    seconds: float = Field(5.0, ge=0)
    """Time in seconds after which no further pair starts."""

    presets: ClassVar = {
        "smoke": {"estimates": 12, "steps": 4, "pairs": 3},
        "cpu": {"estimates": 160, "steps": 100, "pairs": 12, "seconds": 60.0},
        "study": {"estimates": 160, "steps": 100, "pairs": 12, "seconds": 60.0},
        "paper": {"estimates": 400, "steps": 1000, "pairs": 12, "seconds": 60.0},
    }


class ContestSettings(Settings):
    """Handed to the suite."""

    contest: ContestGroup
    train: Rates


class Contest(Suite):
    """Error of the gradient at equal compute."""

    name = "contest"
    title = "error of the gradient at equal compute"
    groups = (ContestGroup,)
    settings = ContestSettings
    roles = ("points", "truth", "step")
    uses = (REFERENCE, "exact")
    alone = by_name = True
    measures: ClassVar = {
        "mse_variance": "(objective per logit or weight)²",
        "mse_bias_sq": "(objective per logit or weight)²",
        "mse_bias_p": "probability",
        "mse_gradient_sq": "(objective per logit or weight)²",
        "mse_unbiased": "claim",
        "mse_entropy": "nats per site",
        "mse_cost": "plain steps",
        "descent_gain": "objective",
        "descent_steps": "steps",
    }

    def applies(self, task: Task, label: Label) -> bool:
        return super().applies(task, label) and bool(task.plain)  # a plain step is the unit of cost

    def dtype(self, settings: Mapping[str, Mapping[str, Any]]) -> str:
        return "bfloat16 steps, float32 gradients" if settings.get("train", {}).get("bf16") else "float32"

    def run(self, job: Job) -> Rows:
        rows = []
        for point in job.task.points(job.seed):
            job.progress(f"{job.label} at {point.name} q", 0, 1)
            rows += _error(job, point) + _cost(job, point)
            if point.name == START:
                rows += _descents(job, point)
        return rows


def _error(job: Job, point: Point) -> Rows:
    rows: Rows = []
    task = job.task
    truth = reference(point, task.truth, task.context.cache, job.seed, by=REFERENCE, of=task.task.identity())
    estimator = job.label.make([site.shape[-1] for site in point.logits]).to(point.logits[0].device)
    logits, weights, hard = fresh(point, estimator, job.settings.contest.estimates, job.seed)
    difference = weights[: len(hard)] - hard
    found = {
        "logits": (logits, squared_norm(logits, reference_estimates=truth), squared_norm(truth)),
        "weights": (weights, squared_norm(difference), squared_norm(hard if difference.any() else weights)),
    }
    for part, (draws, bias, size) in found.items():
        unit = f"(objective per {part[:-1]})²"
        trace, se = variance_trace(draws)
        rows += [
            row("mse_variance", trace, se=se, n=len(draws), part=part, point=point.name, unit=unit),
            row("mse_bias_sq", bias.value, se=bias.se, n=bias.n, part=part, point=point.name, unit=unit),
            row("mse_bias_p", bias.p, n=bias.n, part=part, point=point.name, unit="probability"),
            row("mse_gradient_sq", size.value, se=size.se, n=size.n, part=part, point=point.name, unit=unit),
        ]
    entropy = np.mean([float(torch.special.entr(torch.softmax(site, -1)).sum()) for site in point.logits])
    rows.append(row("mse_unbiased", float(estimator.unbiased), point=point.name, unit="claim"))
    rows.append(row("mse_entropy", float(entropy), point=point.name, unit="nats per site"))
    return rows


def _cost(job: Job, point: Point) -> Rows:
    how, task = job.settings.contest, job.task
    plain, own = task.at(None, point.logits), task.at(job.label.make, point.logits)
    base, spent = interleaved(plain, own, task.context.device, how.pairs, how.seconds)
    estimate, se = ratio(spent, base)
    return [row("mse_cost", estimate, se=se, n=len(spent), point=point.name, unit="plain steps")]


class Descent:
    """Optimises φ alone with an estimator's gradient, each step on a fresh minibatch.

    Args:
        point: the start; its weights must be frozen.
        estimator: the estimator, in training mode.
        rates: learning rates of φ and of the estimator's parameters.
        seed: seed of minibatches and noise.
    """

    def __init__(self, point: Point, estimator: Estimator, rates: Rates, seed: int) -> None:
        self.point, self.estimator, self.seed = point, estimator, seed
        phi = torch.nn.ParameterList(site.clone() for site in point.logits)
        self.leaves = tuple(phi)
        self.learner = Learner(
            {"phi": phi},
            {"phi": torch.optim.Adam(phi, lr=rates.phi_lr)},
            estimator=estimator,
            control_lr=rates.control_lr,
            generators={"noise": torch.Generator(self.leaves[0].device).manual_seed(seed_of("descent", seed))},
        )

    def step(self) -> None:
        self.learner.step(self._gradients)

    def _gradients(self) -> Tensor:
        loss = self.learner.backward(self.point.objective(f"descent {self.seed}", self.steps), self.leaves)
        penalty = self.point.penalty([torch.softmax(site, -1) for site in self.leaves])
        if penalty.requires_grad:
            penalty.backward()
        return loss

    @property
    def steps(self) -> int:
        return self.learner.step_count

    def tensors(self) -> dict[str, list[Tensor]]:
        return self.learner.tensors()


def _descents(job: Job, point: Point) -> Rows:
    """Gain and steps of each optimisation of φ; its number is x."""
    runs, device, rows = job.settings.contest.runs, job.task.context.device, []
    plain = job.task.at(None, point.logits)
    with frozen(point):
        before = _values(point, point.logits)
        for run in range(runs):
            estimator = job.label.make([site.shape[-1] for site in point.logits]).to(device).train()
            descent = Descent(point, estimator, job.settings.train, job.seed * runs + run)
            _spend(job, descent, plain)
            gains = before - _values(point, [site.detach() for site in descent.leaves])
            se = float(gains.std(ddof=1)) / len(gains) ** 0.5
            rows.append(row("descent_gain", float(gains.mean()), se=se, n=len(gains), x=run, unit="objective"))
            rows.append(row("descent_steps", descent.steps, x=run, unit="steps"))
    return rows


def _spend(job: Job, descent: Descent, plain: Workload) -> None:
    """Optimise until the time of the given number of plain steps is spent."""
    device, budget, spent, base = job.task.context.device, job.settings.contest.steps, 0.0, []
    while spent < budget:
        descent.estimator.anneal(min(1.0, spent / budget))
        job.progress("optimising φ", int(spent), budget)
        base.append(seconds(plain, device, 1))
        spent += BUNDLE * seconds(descent, device, BUNDLE) / float(np.median(base))


@torch.no_grad()
def _values(point: Point, logits: Sites) -> np.ndarray:
    """E_q f + penalty on each of the fixed minibatches, with fixed noise."""
    noise = torch.Generator(logits[0].device).manual_seed(seed_of("gain"))
    rows = tuple(site.expand(SAMPLED, -1) for site in logits)
    penalty = float(point.penalty([torch.softmax(site, -1) for site in logits]))
    found = []
    for i in range(MINIBATCHES):
        index = gumbel_argmax(rows, uniform(rows, noise))
        objective = adapt(point.objective("gain", i), [site.shape[-1] for site in logits], torch.float32)
        found.append(float(objective.hard(tuple(index)).mean()) + penalty)
    return np.array(found)
