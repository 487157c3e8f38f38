"""The reference run: one training run per task and seed, with points at which estimators are measured.

Leave-one-out REINFORCE trains φ. Weights train from the start; q is held uniform for the first third. The points lie at
one third (q still uniform, weights part-trained), at two thirds and at the end. An adaptive estimator first adapts on
the last steps before a point, with copies of the logits, and is then measured without further adaptation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import estimators
from estimators import Estimator
from suites.tasks.base import Make, Point, Sites, seed_of
from suites.tasks.network_roles import PointsSettings
from vmo.data import augment
from vmo.learner import ride
from vmo.objective import MinibatchObjective
from vmo.train import Trainer

HELD = 1 / 3
REFERENCE = "rloo"
"""The estimator that trains φ."""
POINTS = {"uniform": HELD, "mid": (1 + HELD) / 2, "peaked": 1.0}


class ReferenceRun:
    """The run, which is made on construction, and its points.

    Args:
        task: the task's name, which is part of every seed.
        build: creates a new trainer with a given estimator.
        settings: the settings of "points".
        seed: the seed of the run.
        report: called with the progress.
        kept: caches the result of a function (the run's snapshots), see `Task.kept`.
    """

    def __init__(
        self,
        task: str,
        build: Callable[[Make], Trainer],
        settings: PointsSettings,
        seed: int,
        report: Callable[[str, int, int], None],
        kept: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self.settings, self.key = settings, (task, seed)
        self.trainer = build(lambda sizes: estimators.get(REFERENCE, sizes=sizes))
        self.trainer.learner.steps = settings.trajectory.steps
        self._stream: Iterator[tuple[Tensor, Tensor]] = iter(())
        saved = kept(lambda: self._made(report))
        self._before: dict[str, dict[str, Any]] = saved["before"]
        self._at: dict[str, dict[str, Any]] = saved["at"]

    def _made(self, report: Callable[[str, int, int], None]) -> dict[str, dict[str, dict[str, Any]]]:
        before: dict[str, dict[str, Any]] = {}
        at: dict[str, dict[str, Any]] = {}
        steps = self.settings.trajectory.steps
        ends = {name: round(part * steps) for name, part in POINTS.items()}
        for step in range(steps + 1):
            for name, end in ends.items():
                if step == max(0, end - self.settings.trajectory.ride):
                    before[name] = self.trainer.snapshot()
                if step == end:
                    at[name] = self.trainer.snapshot()
            if step < steps:
                self._advance(*self._minibatch())
                report("reference run", step + 1, steps)
        return {"before": before, "at": at}

    def points(self) -> Iterator[Point]:
        """The points in turn. Each is valid until the next is requested."""
        distribution = self.trainer.distribution
        assert distribution is not None
        for name in POINTS:
            self.trainer.restore(self._at[name])
            yield Point(
                name=name,
                progress=self._phi_progress(),
                logits=tuple(site.detach().clone() for site in distribution.logits),
                weights=list(self.trainer.network.parameters()),
                objective=lambda stream, i, name=name: self._fresh(name, stream, i),  # type: ignore[misc]
                ride=lambda estimator, name=name: self._ride(name, estimator),  # type: ignore[misc]
                stochastic=True,
                penalty=self._penalty,
            )

    def _penalty(self, probabilities: Sites) -> Tensor:
        trainer = self.trainer
        if trainer.penalty is None or trainer.distribution is None:
            return probabilities[0].new_zeros(())
        return trainer.penalty.expected(trainer.distribution.space, probabilities)

    def _phi_progress(self) -> float:
        """Progress in [0, 1] of the part of the run in which q is trained."""
        return max(0.0, (self.trainer.learner.progress - HELD) / (1 - HELD))

    def _minibatch(self) -> tuple[Tensor, Tensor]:
        """The next minibatch of the run."""
        pair = next(self._stream, None)
        if pair is None:
            self._stream = self.trainer.minibatches()
            pair = next(self._stream)
        return pair

    def _advance(self, images: Tensor, labels: Tensor) -> None:
        """One step of the run. While q is held, its optimizer still updates its moments."""
        learner = self.trainer.learner
        if learner.progress < HELD:
            learner.hold(warm=True)
        else:
            learner.release()
        self.trainer.step(images, labels)

    def _ride(self, name: str, estimator: Estimator) -> None:
        """Repeat the last steps before a point while the estimator adapts, then restore the point.

        The data order starts a new epoch at the snapshot, so the minibatches differ from those of the run itself.
        """
        before, at, q = self._before[name], self._at[name], self.trainer.distribution
        assert q is not None
        self.trainer.restore(before)
        self._stream = iter(())
        noise = torch.Generator(q.logits[0].device).manual_seed(seed_of(*self.key, "ride", name))

        def moments() -> Iterator[tuple[MinibatchObjective, Sites]]:
            while self.trainer.learner.step_count < at["learner"]["step"]:
                pair = self._minibatch()
                estimator.anneal(self._phi_progress())
                yield self.trainer.objective(*pair), self.trainer.rows([site.detach() for site in q.logits])
                self._advance(*pair)

        ride(estimator, moments(), control_lr=self.settings.train.control_lr, noise=noise)
        self.trainer.restore(at)

    def _fresh(self, name: str, stream: str, i: int) -> MinibatchObjective:
        """The objective on the i-th fresh, augmented minibatch of a stream, in training mode and fp32."""
        data = self.trainer.dataset
        device = data.train.images.device
        generator = torch.Generator(device).manual_seed(seed_of(*self.key, name, stream, i))
        pick = torch.randperm(len(data.train), generator=generator, device=device)[: self.settings.train.batch_size]
        self.trainer.network.train()
        objective = self.trainer.objective(augment(data.train.images[pick], data, generator), data.train.labels[pick])
        objective.dtype = None
        return objective
