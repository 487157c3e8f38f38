"""Depth, width and joint: a distribution over architectures of a Wide ResNet, trained on images."""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from estimators import Estimator
from results.table import row
from suites.engine import labels
from suites.presets import select
from suites.tasks.base import Make, Point, Sites, Task
from suites.tasks.reference_run import ReferenceRun
from vmo.checkpoint import Keeper
from vmo.config import WideResNetConfig
from vmo.data import Dataset, Split, identity, load
from vmo.evaluate import evaluate, recalibrate
from vmo.extract import extract, parameters
from vmo.recipe import Recipe
from vmo.space import Architecture, ArchitectureDistribution, Penalty, Space, literal_penalty, normalised_penalty
from vmo.target import Target
from vmo.train import Trainer
from vmo.wrn import WideResNet

_RECIPE = (
    "depth",
    "widen",
    "width_step",
    "batch_size",
    "lr",
    "phi_lr",
    "phi_optimizer",
    "control_lr",
    "bf16",
    "compile",
)
_PENALTY = ("penalty", "gamma", "target_macs")
_RUN = (*_RECIPE, "steps", "ride")
_MEASURED = (*_RUN, *_PENALTY, "estimates", "budget", "references", "enumerate")
TRAIN_IMAGES = 10_000  # whose accuracy is that of training: as many as there are test images in CIFAR
SAMPLED = 10  # architectures drawn for the accuracy of q itself


_load = functools.lru_cache(maxsize=2)(load)  # one copy for all tasks


class Step:
    """A training step on one resident minibatch of a trainer's data."""

    def __init__(self, trainer: Trainer, images: Tensor, labels: Tensor) -> None:
        self.trainer, self.images, self.labels = trainer, images, labels

    def step(self) -> None:
        self.trainer.step(self.images, self.labels)

    def tensors(self) -> dict[str, list[Tensor]]:
        return self.trainer.learner.tensors()


def _first(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.labels[:count])


class NetworkTask(Task):
    """A task of the VMO paper on a Wide ResNet."""

    uses_data = frozenset({"bias", "variance", "accuracy", "contest"})
    settings: ClassVar[dict[str, tuple[str, ...]]] = {
        "bias": _MEASURED,
        "variance": _MEASURED,
        "memory": ("width_step", "memory_depth", "memory_widen", "memory_batch", "bf16"),
        "overhead": ("width_step", "overhead_depth", "overhead_widen", "overhead_batch", "overhead_pairs", "bf16"),
        "accuracy": (*_RECIPE, *_PENALTY, "epochs", "freeze", "weights"),
        "contest": (
            *_RUN,
            *_PENALTY,
            "references",
            "enumerate",
            "overhead_pairs",
            "contest_estimates",
            "contest_steps",
            "contest_runs",
        ),
        "scaling": (
            "depth",
            "widen",
            "width_step",
            "scaling_batch",
            "scaling_values",
            "scaling_pairs",
            "budget",
            "bf16",
        ),
    }

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data, on the device."""
        return _load(self.context.dataset, self.context.data_root, self.context.device)

    def prepare(self) -> None:
        config, images = self.config("accuracy"), len(self.dataset.train)
        if self.preset.batch_size > images:
            raise ValueError(f"batch_size={self.preset.batch_size} exceeds the {images} training images")
        space = Space(self.name, config.widths, self.preset.width_step)
        self.penalty(space, config, self.dataset.shape[-1])
        self.weight_estimator(space)

    def config(self, suite: str) -> WideResNetConfig:
        """The network at the size at which a suite works; the data are read only where they decide it."""
        p = self.preset
        heads = "last" if self.name == "width" else "all"
        if suite == "memory":
            return WideResNetConfig(p.memory_depth, p.memory_widen, heads=heads)
        if suite == "overhead":
            return WideResNetConfig(p.overhead_depth, p.overhead_widen, heads=heads)
        return WideResNetConfig(p.depth, p.widen, self.dataset.classes, self.dataset.shape[0], heads=heads)

    def sizes(self, suite: str) -> tuple[int, ...]:
        p = self.preset
        config = self.config(suite) if suite in ("memory", "overhead") else WideResNetConfig(p.depth, p.widen)
        return Space(self.name, config.widths, p.width_step).sizes

    def estimates(self, evaluations: int) -> int:
        return max(20, min(self.preset.estimates, self.preset.budget // evaluations))

    def penalty(self, space: Space, config: WideResNetConfig, size: int) -> Penalty | Target:
        """γ r(A), on images of `size` × `size`, or what holds q to a target."""
        kind, ratio = self.preset.penalty, self.preset.target_macs
        if ratio:
            target = Target(normalised_penalty(space, 1.0, config.macs(size)), ratio)
            target.check(space)
            return target
        if kind == "literal":
            return literal_penalty(space)
        if kind not in ("macs", "parameters"):
            raise ValueError(f"penalty must be macs, parameters or literal, got {kind!r}")
        return normalised_penalty(
            space, self.preset.gamma, config.macs(size) if kind == "macs" else config.parameters()
        )

    def weight_estimator(self, space: Space) -> Estimator | None:
        """What the weights train on, where not on the samples of the estimator of φ."""
        named = {"hard": "reinforce[baseline=none]", "soft": "concrete"}
        if self.preset.weights == "own":
            return None
        try:
            label = labels.parse(named.get(self.preset.weights, self.preset.weights))
            return label.make(space.sizes)
        except ValueError as error:
            raise ValueError(f"weights must be own, hard, soft or an estimator: {error}") from None

    def trainer(
        self, make: Make | None, seed: int, *, learn: bool = True, architecture: Architecture | None = None
    ) -> Trainer:
        """A fresh run. Equal seeds give equal initial weights and equal data order whatever the estimator.

        Without an estimator it is plain training, of the full network or of `architecture`. See `train`.
        """
        values = asdict(self.preset) | {"learn": learn}
        recipe = Recipe(**{name: values[name] for name in Recipe.__dataclass_fields__ if name in values})
        config = self.config("accuracy")
        if architecture is not None:
            config = replace(config, hidden=architecture.hidden, blocks=architecture.blocks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._trainer(make, config, self.dataset, recipe, seed)

    def _trainer(
        self, make: Make | None, config: WideResNetConfig, data: Dataset, recipe: Recipe, seed: int
    ) -> Trainer:
        with data.train.images.device:  # everything is made where it will be used
            if make is None:
                return Trainer(WideResNet(replace(config, heads="last")), data, recipe, seed=seed)
            space = Space(self.name, config.widths, self.preset.width_step)
            return Trainer(
                WideResNet(config),
                data,
                recipe,
                distribution=ArchitectureDistribution(space),
                estimator=make(space.sizes),
                penalty=self.penalty(space, config, data.shape[-1]),
                weight_estimator=self.weight_estimator(space),
                seed=seed,
            )

    @functools.cache  # noqa: B019  a task lives as long as the run that uses it
    def _reference_run(self, seed: int) -> ReferenceRun:
        context = self.context
        data = identity(context.dataset, context.data_root)
        key = repr((self.name, self.version, data, str(context.device), seed, select(self.preset, (*_RUN, *_PENALTY))))
        name = f"run-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
        path = None if context.cache is None else context.cache / name
        return ReferenceRun(self.name, lambda make: self.trainer(make, seed), self.preset, seed, context.progress, path)

    def points(self, seed: int) -> Iterator[Point]:
        return self._reference_run(seed).points()

    def workload(self, make: Make | None, suite: str) -> Step:
        if suite == "variance":
            trainer = self.trainer(make, 0)
            return Step(trainer, *next(trainer.minibatches()))
        p, device = self.preset, self.context.device
        batch, config = (p.memory_batch if suite == "memory" else p.overhead_batch), self.config(suite)
        # neither time nor storage depends on what the images show
        pixels = torch.zeros(batch, config.channels, 32, 32, dtype=torch.uint8, device=device)
        split = Split(pixels, torch.zeros(batch, dtype=torch.int64, device=device))
        data = Dataset("blank", split, split, config.classes, (0.0,) * 3, (1.0,) * 3, 4, True)
        trainer = self._trainer(make, config, data, Recipe(epochs=1, batch_size=batch, bf16=p.bf16), 0)
        return Step(trainer, torch.randn(pixels.shape, device=device), split.labels)

    def held(self, make: Make, part: float) -> Step | None:
        step = self.workload(make, "overhead")
        q = step.trainer.distribution
        assert q is not None
        depth, widths = q.space.split(q.logits)
        if not widths:
            return None
        for site in widths if depth is None else (depth, *widths):
            k = len(site) if site is depth else max(1, round(part * len(site)))
            with torch.no_grad():
                site.fill_(-100.0)[k - 1] = 100.0
        return step

    def at(self, make: Make | None, logits: Sites) -> Step:
        trainer = self.trainer(make, 0)
        if trainer.distribution is not None:
            trainer.learner.hold(warm=True)  # a step costs what it costs where φ moves
            with torch.no_grad():
                for site, value in zip(trainer.distribution.logits, logits, strict=True):
                    site.copy_(value)
        return Step(trainer, *next(trainer.minibatches()))

    def train(
        self,
        make: Make | None,
        seed: int,
        keeper: Keeper,
        *,
        learn: bool = True,
        architecture: Architecture | None = None,
    ) -> list[dict[str, Any]]:
        """See `Task.train`.

        Args:
            make: the estimator, or None for plain training.
            seed: of everything.
            keeper: of its checkpoints.
            learn: False: q stays as it begins, and the run comes to a sample of it.
            architecture: of plain training; by default the full network.
        """
        trainer = self.trainer(make, seed, learn=learn, architecture=architecture)
        q = trainer.distribution
        curves = [] if q is None else self._state(q, 0)
        epoch = 1
        if (saved := keeper.load(self.context.device)) is not None:
            trainer.restore(saved["trainer"])
            curves, epoch = saved["curves"], saved["epoch"]

        def state() -> dict[str, Any]:
            about = self._about(trainer, seed)
            return {"trainer": trainer.snapshot(), "curves": curves, "epoch": epoch, "run": about}

        def on_step() -> None:
            self.context.progress("training", trainer.learner.step_count, trainer.steps)
            keeper.offer(state)

        while epoch <= trainer.recipe.epochs:
            loss = trainer.epoch(on_step)
            curves.append(row("curve_loss", loss, x=epoch, unit="nats"))
            if q is not None:
                curves += self._state(q, epoch)
            epoch += 1
        keeper.finish(state())
        return self._results(trainer, seed) + curves

    def cut_alike(self, architecture: Architecture) -> Architecture:
        config, size = self.config("accuracy"), self.dataset.shape[-1]
        kept = replace(config, hidden=architecture.hidden, blocks=architecture.blocks).total_macs(size)
        rest, fixed, slope = config.macs(size)
        most = max(config.widths)
        # every factor at which some block loses a channel, and the one whose network costs most nearly as much
        cuts = [tuple(max(1, round(i * k / most)) for k in config.widths) for i in range(1, most + 1)]
        macs = [rest + sum(fixed) + sum(map(operator.mul, slope, cut)) for cut in cuts]
        best = min(range(most), key=lambda i: abs(macs[i] - kept))
        return Architecture(len(config.widths), cuts[best])

    def _about(self, trainer: Trainer, seed: int) -> dict[str, Any]:
        """What a checkpoint must say for `vmo.compact` to make a network of it; going on does not read it."""
        return {
            "task": "plain" if trainer.distribution is None else self.name,
            "width_step": self.preset.width_step,
            "network": asdict(trainer.network.config),
            "architecture": asdict(trainer.architecture()),
            "recipe": asdict(trainer.recipe),
            "dataset": identity(self.context.dataset, self.context.data_root),
            "seed": seed,
        }

    def _results(self, trainer: Trainer, seed: int) -> list[dict[str, Any]]:
        """What a finished run has come to."""
        q, data = trainer.distribution, self.dataset
        full = self.config("accuracy").widths
        chosen = trainer.architecture()
        compact = self._deploy(trainer, chosen)
        size = data.shape[-1]
        macs = compact.config.total_macs(size)
        rows = []
        for part, split in (("train", _first(data.train, TRAIN_IMAGES)), ("test", data.test)):
            loss, accuracy = evaluate(compact, split, data)
            rows.append(row("loss", loss, part=part, n=len(split), unit="nats"))
            rows.append(row("accuracy", accuracy, part=part, n=len(split), unit="fraction"))
        kept = torch.tensor([k / most for k, most in zip(chosen.hidden, full, strict=False)])
        rows += [
            row("layers", 4 + 2 * chosen.blocks, unit="layers"),
            row("width_fraction", float(kept.mean()), unit="fraction"),
            row("width_sd_blocks", float(kept.std(correction=0)), unit="fraction"),
            row("parameters", parameters(compact), unit="parameters"),
            row("macs", macs, unit="MACs"),
            row("macs_ratio", macs / self.config("accuracy").total_macs(size), unit="fraction"),
            *(row("block_width", k, x=block, unit="channels") for block, k in enumerate(chosen.hidden, 1)),
        ]
        if q is not None:
            noise = torch.Generator(self.context.device).manual_seed(seed)
            right = 0.0
            for i in range(SAMPLED):  # each on its own part of the test images
                images, labels = (t.tensor_split(SAMPLED)[i] for t in (data.test.images, data.test.labels))
                drawn = self._deploy(trainer, q.sample(noise), minibatches=10)
                right += len(labels) * evaluate(drawn, Split(images, labels), data)[1]
            rows.append(row("sampled_accuracy", right / len(data.test), n=SAMPLED, unit="fraction"))
            rows.append(row("entropy", float(q.entropy().mean()), unit="nats per site"))
        return rows

    def _deploy(self, trainer: Trainer, architecture: Architecture, minibatches: int = 50) -> WideResNet:
        compact = extract(trainer.network, architecture)
        recalibrate(compact, self.dataset, limit=minibatches)
        return compact

    def _state(self, q: ArchitectureDistribution, epoch: int) -> list[dict[str, Any]]:
        return [
            row("curve_width", float(q.expected_width()), x=epoch, unit="fraction"),
            row("curve_depth", float(4 + 2 * q.expected_depth()), x=epoch, unit="layers"),
            row("curve_entropy", float(q.entropy().mean()), x=epoch, unit="nats per site"),
        ]


class Depth(NetworkTask):
    """How many blocks."""

    name = "depth"


class Width(NetworkTask):
    """How many hidden channels in every block."""

    name = "width"


class Joint(NetworkTask):
    """Both."""

    name = "joint"
