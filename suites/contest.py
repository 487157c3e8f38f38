"""The contest: what is left of a gradient's error at equal compute, biased and unbiased estimators side by side.

    MSE(C) = bias² + variance · cost / C,    C in plain training steps,

of the gradient ∂φ E_minibatch E_q f, and of E ∂f/∂w, at fixed weights of a part-trained network: train-mode BN on whole
minibatches for all, minibatch and augmentation drawn anew for every estimate. What an estimator learns it has learned
from minibatches of earlier steps. The cost is that of the whole training step, in plain steps of the same network timed
in turn with it, at the very q. Rows hold what MSE(C) is made of; `results.contest` puts it together.

And what a gradient is for: with weights frozen, φ follows the estimator from a uniform q (Adam) until as much time is
spent as a number of plain steps take; the gain in E_q f + penalty, on the same minibatches before and after.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from estimators import Estimator
from estimators.base import adapt
from estimators.noise import gumbel_argmax, uniform
from results.stats import squared_norm, variance_trace
from results.table import row
from suites.engine.cell import Cell, Workshop
from suites.engine.labels import Label
from suites.measure import fresh, frozen, reference
from suites.overhead import interleaved, ratio, seconds
from suites.tasks.base import Point, Sites, Task, Workload, seed_of
from vmo.learner import Learner

REFERENCE = Label("sweep", (("samples", 3),))
"""By what the true gradient is estimated, on minibatches of its own: of all that are unbiased the most exact."""
START = "uniform"
"""The point from which φ is optimised."""
BUNDLE = 5
"""Steps of φ between two timings of a plain step."""
MINIBATCHES, SAMPLED = 24, 4
"""On which the gain is measured, and architectures drawn for each."""


def run(cell: Cell, shop: Workshop) -> list[dict[str, Any]]:
    """The rows of a contest cell."""
    task = shop.task(cell.task)
    rows = []
    for point in task.points(cell.seed):
        task.context.progress(f"{cell.label} at {point.name} q", 0, 1)
        rows += _error(task, cell.label, point, cell.seed) + _cost(task, cell.label, point)
        if point.name == START:
            rows += _descents(task, cell.label, point, cell.seed)
    return rows


def _error(task: Task, label: Label, point: Point, seed: int) -> list[dict[str, Any]]:
    preset, rows = task.preset, []
    truth = reference(point, preset.references, preset.enumerate, task.context.cache, seed, by=REFERENCE)
    estimator = label.make([site.shape[-1] for site in point.logits]).to(point.logits[0].device)
    logits, weights, hard = fresh(point, estimator, preset.contest_estimates, seed)
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


def _cost(task: Task, label: Label, point: Point) -> list[dict[str, Any]]:
    p, plain, own = task.preset, task.at(None, point.logits), task.at(label.make, point.logits)
    base, spent = interleaved(plain, own, task.context.device, p.overhead_pairs, p.overhead_seconds)
    estimate, se = ratio(spent, base)
    return [row("mse_cost", estimate, se=se, n=len(spent), point=point.name, unit="plain steps")]


class Descent:
    """Steps of φ alone along an estimator's gradient, each on a fresh minibatch.

    Args:
        point: where it starts; its weights must be frozen.
        estimator: in training mode.
        preset: with the learning rates.
        seed: of minibatches and noise.
    """

    def __init__(self, point: Point, estimator: Estimator, task: Task, seed: int) -> None:
        self.point, self.estimator, self.seed = point, estimator, seed
        phi = torch.nn.ParameterList(site.clone() for site in point.logits)
        self.leaves = tuple(phi)
        self.learner = Learner(
            {"phi": phi},
            {"phi": torch.optim.Adam(phi, lr=task.preset.phi_lr)},
            estimator=estimator,
            control_lr=task.preset.control_lr,
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


def _descents(task: Task, label: Label, point: Point, seed: int) -> list[dict[str, Any]]:
    """One pair of rows for each run, whose number is x."""
    preset, device, rows = task.preset, task.context.device, []
    plain = task.at(None, point.logits)
    with frozen(point):
        before = _values(point, point.logits)
        for run in range(preset.contest_runs):
            estimator = label.make([site.shape[-1] for site in point.logits]).to(device).train()
            descent = Descent(point, estimator, task, seed * preset.contest_runs + run)
            _spend(descent, plain, task)
            gains = before - _values(point, [site.detach() for site in descent.leaves])
            se = float(gains.std(ddof=1)) / len(gains) ** 0.5
            rows.append(row("descent_gain", float(gains.mean()), se=se, n=len(gains), x=run, unit="objective"))
            rows.append(row("descent_steps", descent.steps, x=run, unit="steps"))
    return rows


def _spend(descent: Descent, plain: Workload, task: Task) -> None:
    """Let it go on until it has taken as long as the preset's number of plain steps would."""
    device, budget, spent, base = task.context.device, task.preset.contest_steps, 0.0, []
    while spent < budget:
        descent.estimator.anneal(min(1.0, spent / budget))
        task.context.progress("optimising φ", int(spent), budget)
        base.append(seconds(plain, device, 1))
        spent += BUNDLE * seconds(descent, device, BUNDLE) / float(np.median(base))


@torch.no_grad()
def _values(point: Point, logits: Sites) -> np.ndarray:
    """E_q f + penalty on each of the same minibatches, with the same noise."""
    noise = torch.Generator(logits[0].device).manual_seed(seed_of("gain"))
    rows = tuple(site.expand(SAMPLED, -1) for site in logits)
    penalty = float(point.penalty([torch.softmax(site, -1) for site in logits]))
    found = []
    for i in range(MINIBATCHES):
        index = gumbel_argmax(rows, uniform(rows, noise))
        objective = adapt(point.objective("gain", i), [site.shape[-1] for site in logits], torch.float32)
        found.append(float(objective.hard(tuple(index)).mean()) + penalty)
    return np.array(found)
