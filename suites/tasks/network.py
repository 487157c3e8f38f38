"""The tasks depth, width and joint: a distribution over architectures of a Wide ResNet, trained on images."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from estimators import Estimator
from suites import labels
from suites.rivals import Rival
from suites.rivals.base import Start
from suites.tasks import network_settings as settings_of
from suites.tasks.base import Make, Point, Sites, Size, Task, Truth, TruthSettings, dataset_of
from suites.tasks.network_roles import (
    CountedSettings,
    EstimatesSettings,
    PlainCountedSettings,
    PlainRunSettings,
    PlainScaledSettings,
    PlainTimedSettings,
    PointsSettings,
    RunSettings,
    ScaledSettings,
    StepSettings,
    TimedSettings,
)
from suites.tasks.network_run import cut_alike, whole_run
from suites.tasks.network_settings import AnyRun, Grid, Penalty, Precision, Timing, Train
from suites.tasks.network_steps import Step, blank
from suites.tasks.reference_run import REFERENCE, ReferenceRun
from vmo.checkpoint import Keeper
from vmo.config import WideResNetConfig
from vmo.data import Dataset, Split, split_off
from vmo.recipe import RECIPES, Recipe
from vmo.space import Architecture, ArchitectureDistribution, Space, literal_penalty, normalised_penalty
from vmo.space import Penalty as SpacePenalty
from vmo.target import Target
from vmo.train import Trainer
from vmo.wrn import WideResNet


class NetworkTask(Task):
    """A task of the VMO paper, on a Wide ResNet."""

    groups = (*settings_of.GROUPS, Truth)
    uses_data = frozenset({"points", "step", "run"})
    roles: ClassVar = {
        "points": PointsSettings,
        "truth": TruthSettings,
        "estimates": EstimatesSettings,
        "step": StepSettings,
        "timed": TimedSettings,
        "counted": CountedSettings,
        "scaled": ScaledSettings,
        "run": RunSettings,
    }
    plain_roles: ClassVar = {
        "timed": PlainTimedSettings,
        "counted": PlainCountedSettings,
        "scaled": PlainScaledSettings,
        "run": PlainRunSettings,
    }

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data, on the device."""
        return dataset_of(self.context)

    def prepare(self, role: str, settings: Any) -> None:
        how = getattr(settings, "train", None)
        if isinstance(how, Timing) and how.weights not in settings_of.OF_NO_ESTIMATOR:
            try:
                labels.parse(how.weights).make(self.sizes(role, settings))
            except ValueError as error:
                raise ValueError(f"setting train.weights: {settings_of.TRAINED_ON}: {error}") from None
        if role not in self.uses_data:
            return
        config, images, batch = self.config(settings.network), len(self.dataset.train), settings.train.batch_size
        if isinstance(settings, RunSettings | PlainRunSettings):
            images -= round(settings.train.validation * images)
            images = min(images, settings.train.images or images)
        if isinstance(settings, RunSettings) and settings.train.held_out:
            held_out = round(settings.train.held_out * images)
            images = min(held_out, images - held_out)
        if batch > images:
            raise ValueError(f"train.batch_size={batch} exceeds the {images} training images")
        if not isinstance(settings, PlainRunSettings):
            space = Space(self.name, config.widths, settings.network.width_step)
            self.penalty(settings.penalty, space, config, self.dataset.shape[-1])

    def uses(self, role: str, settings: Any) -> tuple[str, ...]:
        own = getattr(getattr(settings, "train", None), "weights", "own")
        return (
            *((own,) if own not in settings_of.OF_NO_ESTIMATOR else ()),
            *((REFERENCE,) if role == "points" else ()),
        )

    def config(self, size: settings_of.Size) -> WideResNetConfig:
        """The configuration of the network for the data."""
        return WideResNetConfig(size.depth, size.widen, self.dataset.classes, self.dataset.shape[0], heads=self._heads)

    @property
    def _heads(self) -> str:
        return "last" if self.name == "width" else "all"

    def _size(self, role: str, settings: Any) -> Size:
        """The size of the step of "timed" or "counted"."""
        at = settings.timed if role == "timed" else settings.counted
        return Size(at.batch, at.widen, at.depth, settings.network.width_step if hasattr(settings, "network") else 1)

    def sizes(self, role: str, settings: Any) -> tuple[int, ...]:
        if role in ("timed", "counted"):
            return self.sizes_at(self._size(role, settings))
        return self.sizes_at(Size(0, settings.network.widen, settings.network.depth, settings.network.width_step))

    def sizes_at(self, size: Size) -> tuple[int, ...]:
        return Space(self.name, WideResNetConfig(size.depth, size.widen).widths, size.step).sizes

    def base(self, settings: Any) -> Size:
        return Size(0, settings.network.widen, settings.network.depth, settings.network.width_step)

    def estimates(self, settings: EstimatesSettings, evaluations: int) -> int:
        return max(20, min(settings.gradient.estimates, settings.gradient.budget // evaluations))

    def penalty(self, how: Penalty, space: Space, config: WideResNetConfig, size: int) -> SpacePenalty | Target:
        """The penalty γ r(A), on `size` × `size` images, or the penalty for a target."""
        if how.target_macs:
            target = Target(normalised_penalty(space, 1.0, config.macs(size)), how.target_macs)
            target.check(space)
            return target
        if how.kind == "literal":
            return literal_penalty(space)
        return normalised_penalty(space, how.gamma, config.macs(size) if how.kind == "macs" else config.parameters())

    def weight_estimator(self, how: Timing, space: Space) -> Estimator | Literal["mode"] | None:
        """The `weight_estimator` of `vmo.train.Trainer`: None if weights train on the samples of φ's estimator."""
        if how.weights == "mode":
            return "mode"
        return None if how.weights == "own" else labels.parse(how.weights).make(space.sizes)

    def trainer(
        self,
        settings: PointsSettings | StepSettings | RunSettings | PlainRunSettings,
        make: Make | None,
        seed: int,
        *,
        learn: bool = True,
        architecture: Architecture | None = None,
        rival: Rival | None = None,
    ) -> Trainer:
        """A new run. Equal seeds give equal initial weights and data order for all estimators and rivals.

        Without an estimator it is plain training, of the full network or of `architecture`. See `run`.
        """
        how, data, held_out = settings.train, self.dataset, None
        of_recipe = {field.name for field in fields(Recipe)}
        recipe = Recipe(**{name: getattr(how, name) for name in type(how).model_fields if name in of_recipe})
        recipe = replace(recipe, learn=learn)
        if isinstance(how, AnyRun):
            recipe = replace(recipe, **RECIPES[how.recipe])
        if isinstance(how, AnyRun) and how.validation:
            rest, validation = split_off(data, how.validation)
            data = replace(rest, test=validation)
        if isinstance(how, AnyRun) and 0 < how.images < len(data.train):
            data = replace(data, train=split_off(data, how.images / len(data.train))[1])
        if isinstance(how, Train) and how.held_out:
            data, held_out = split_off(data, how.held_out)
        config = self.config(settings.network)
        if architecture is not None:
            config = replace(config, hidden=architecture.hidden, blocks=architecture.blocks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if rival is not None:
                return self._rival(rival, config, data, recipe, seed, settings)
            if make is None or isinstance(settings, PlainRunSettings):
                return self._plain(config, data, recipe, seed)
            return self._learner(
                make, config, data, recipe, seed, settings.network, settings.penalty,
                how if isinstance(how, Timing) else None, held_out,
            )  # fmt: skip

    def _rival(
        self, rival: Rival, config: WideResNetConfig, data: Dataset, recipe: Recipe, seed: int, settings: Any
    ) -> Trainer:
        space = Space(self.name, config.widths, settings.network.width_step)
        target = self.penalty(settings.penalty, space, config, data.shape[-1])
        assert isinstance(target, Target)
        with data.train.images.device:
            network = WideResNet(config)
        return rival.trainer(Start(network, data, recipe, space, target, seed))

    def _plain(self, config: WideResNetConfig, data: Dataset, recipe: Recipe, seed: int) -> Trainer:
        with data.train.images.device:  # create everything on its device
            return Trainer(WideResNet(replace(config, heads="last")), data, recipe, seed=seed)

    def _learner(
        self,
        make: Make,
        config: WideResNetConfig,
        data: Dataset,
        recipe: Recipe,
        seed: int,
        grid: Grid,
        penalty: Penalty,
        weights: Timing | None,
        held_out: Split | None = None,
    ) -> Trainer:
        space = Space(self.name, config.widths, grid.width_step)
        with data.train.images.device:
            return Trainer(
                WideResNet(config),
                data,
                recipe,
                distribution=ArchitectureDistribution(space),
                estimator=make(space.sizes),
                penalty=self.penalty(penalty, space, config, data.shape[-1]),
                weight_estimator=None if weights is None else self.weight_estimator(weights, space),
                held_out=held_out,
                seed=seed,
            )

    @functools.cache  # noqa: B019  a task lives as long as the run that uses it
    def _reference_run(self, settings: PointsSettings, seed: int) -> ReferenceRun:
        return ReferenceRun(
            self.name,
            lambda make: self.trainer(settings, make, seed),
            settings,
            seed,
            self.context.progress,
            lambda make: self.kept("reference-run", seed, settings, make),
        )

    def points(self, settings: PointsSettings, seed: int) -> Iterator[Point]:
        return self._reference_run(settings, seed).points()

    def workload(self, role: str, settings: Any, make: Make | None, size: Size | None = None) -> Step:
        if role == "step":
            trainer = self.trainer(settings, make, 0)
            return Step(trainer, *next(trainer.minibatches()))
        at = self._size(role, settings) if size is None else size
        config, device = WideResNetConfig(at.depth, at.widen, heads=self._heads), self.context.device
        data, images = blank(config, at.batch, device)
        how: Precision = settings.train
        recipe = Recipe(epochs=1, batch_size=at.batch, bf16=how.bf16)
        if make is None:
            trainer = self._plain(config, data, recipe, 0)
        else:  # the kind of penalty does not affect the cost: it is a few sums
            weights = how if isinstance(how, Timing) else None
            trainer = self._learner(make, config, data, recipe, 0, Grid(width_step=at.step), Penalty(), weights)
        return Step(trainer, images, data.train.labels)

    def held(self, settings: TimedSettings, make: Make, part: float) -> Step | None:
        step = self.workload("timed", settings, make)
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

    def at(self, settings: StepSettings, make: Make | None, logits: Sites) -> Step:
        trainer = self.trainer(settings, make, 0)
        if trainer.distribution is not None:
            trainer.learner.hold(warm=True)  # so that a step costs as much as when φ moves
            with torch.no_grad():
                for site, value in zip(trainer.distribution.logits, logits, strict=True):
                    site.copy_(value)
        return Step(trainer, *next(trainer.minibatches()))

    def run(
        self,
        settings: RunSettings | PlainRunSettings,
        make: Make | None,
        seed: int,
        keeper: Keeper,
        *,
        learn: bool = True,
        architecture: Architecture | None = None,
        rival: Rival | None = None,
    ) -> list[dict[str, Any]]:
        """See `Task.run`.

        Args:
            settings: the settings of the run.
            make: makes the estimator; None for plain training.
            seed: the seed of everything.
            keeper: keeps the checkpoints.
            learn: False: q keeps its initial value, and the run's architecture is a sample of it.
            architecture: the network of plain training; default: the full network.
            rival: the rival whose run it is, in place of an estimator.
        """
        trainer = self.trainer(settings, make, seed, learn=learn, architecture=architecture, rival=rival)
        about = {
            "task": "plain" if make is None and rival is None else self.name,
            "width_step": settings.network.width_step if isinstance(settings, RunSettings) else 1,
            **self.dataset.identity.recorded(),
            "seed": seed,
        }
        whole, held_back = self.config(settings.network), settings.train.validation > 0
        measured = "validation" if held_back else "test"
        return whole_run(trainer, whole, seed, about, keeper, self.context.progress, measured)

    def networks(
        self, settings: RunSettings, architecture: Architecture
    ) -> tuple[tuple[nn.Module, nn.Module], tuple[int, ...]]:
        config = replace(self.config(settings.network), heads="last")
        small = replace(config, hidden=architecture.hidden, blocks=architecture.blocks)
        with torch.random.fork_rng(devices=[]), self.context.device:
            return (WideResNet(config).eval(), WideResNet(small).eval()), self.dataset.shape

    def cut_alike(self, settings: RunSettings, architecture: Architecture) -> Architecture:
        return cut_alike(self.config(settings.network), self.dataset.shape[-1], architecture)


class Depth(NetworkTask):
    """Learns after which residual block the classifier sits."""

    name = "depth"


class Width(NetworkTask):
    """Learns the number of hidden channels of every block."""

    name = "width"
    narrows = True

    def unfit(self, name: str, settings: RunSettings) -> str | None:
        if not settings.penalty.target_macs:
            return f"{name} needs a budget: --target-macs R, a fraction of the full network's MACs"
        for option in ("weights", "freeze", "continued", "held_out"):
            if (value := getattr(settings.train, option)) != Train.model_fields[option].default:
                return f"{name} chooses its network in its own way, without train.{option}, got {value!r}"
        return None


class Joint(NetworkTask):
    """Learns depth and width together."""

    name = "joint"
