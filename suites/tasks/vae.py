"""The categorical VAE, on which papers of this field compare estimators.

    −ELBO(x) = E_{z ~ q(z|x)} [−log p(x | z)] + KL(q(z|x) ‖ p(z)),    x ~ Bernoulli(intensity), new at every step

It has L latent variables of K categories, a uniform p(z) and Bernoulli pixels. Encoder and decoder are linear or have
hidden layers. The KL divergence is differentiated exactly, so the estimator's objective is only −log p(x | z), with one
row per image. Losses are sums over the images of a minibatch. Adam is invariant to this factor, and the estimator
learns in nats per image for any minibatch size.

Jang, Gu, Poole 2017, arXiv:1611.01144; Maddison, Mnih, Teh 2017, arXiv:1611.00712.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import estimators
from estimators import Estimator
from results.table import row
from suites.settings import Group, Settings, narrow
from suites.tasks import curve
from suites.tasks.base import Make, Point, Sites, Size, Task, Truth, TruthSettings, dataset_of, seed_of
from suites.tasks.vae_model import Run, Vae, bound
from vmo.checkpoint import Keeper
from vmo.data import Dataset
from vmo.learner import ride

POINTS = {"uniform": 0.0, "mid": 0.5, "peaked": 1.0}
MEASURED = 4  # images whose logits' gradients are measured
SHOWN = 1000  # images for each point of the training curve
SAMPLES = 10  # samples of z per image for the final ELBO
REFERENCE = "rloo[samples=4]"
"""The estimator that trains the reference run."""
TIMED_LR = 1e-3  # learning rate of a step that is timed or counted; its cost does not depend on it


class Model(Settings):
    """The network and its minibatches."""

    latents: int = Field(16, ge=1)
    """Categorical latent variables, the sites."""
    categories: int = Field(10, ge=2)
    """Categories of each latent variable."""
    layers: int = Field(2, ge=0)
    """Hidden layers of the encoder and of the decoder; 0: both are linear."""
    hidden: int = Field(200, ge=1)
    """Width of the hidden layers."""
    batch_size: int = Field(64, ge=1)
    """Images per step."""


class Training(Model):
    """The network and its training."""

    steps: int = Field(600, ge=1)
    """Training steps."""
    lr: float = Field(1e-3, ge=0)
    """Learning rate of Adam for encoder and decoder."""
    control_lr: float = Field(0.01, ge=0)
    """Learning rate of Adam for control variates."""


class Reference(Training):
    """The reference run with its points."""

    ride: int = Field(50, ge=0)
    """Steps on which an adaptive estimator (with a baseline or control variate) adapts before each point."""


class Estimates(Settings):
    """How often an estimator is measured."""

    estimates: int = Field(2000, ge=20)
    """Estimates per point for one evaluation per estimate; with more evaluations fewer in proportion, at least 20."""


class VaeGroup(Reference, Estimates, Group, name="vae"):
    """The categorical VAE."""

    presets: ClassVar = {
        "smoke": {"steps": 40, "estimates": 100, "ride": 4},
        "cpu": {"steps": 50_000, "estimates": 20_000, "batch_size": 128},
        "paper": {"steps": 500_000, "estimates": 20_000, "batch_size": 128},
    }


class StepSettings(Settings):
    """Handed for "step", "timed" and "counted"."""

    vae: Model


class RunSettings(Settings):
    """Handed for "run"."""

    vae: Training


class PointsSettings(Settings):
    """Handed for "points"."""

    vae: Reference


class EstimatesSettings(Settings):
    """Handed for "estimates"."""

    vae: Estimates


class VaeTask(Task):
    """The VAE task.

    Bias and variance are measured for the logits' gradients of four test images, at three points of one training run by
    leave-one-out REINFORCE with four samples. Adaptive estimators adapt there on minibatches of four training images.
    """

    name = "vae"
    plain = False
    groups = (VaeGroup, Truth)
    uses_data = frozenset({"points", "step", "run"})
    roles: ClassVar = {
        "points": PointsSettings,
        "truth": TruthSettings,
        "estimates": EstimatesSettings,
        "step": StepSettings,
        "timed": StepSettings,
        "counted": StepSettings,
        "run": RunSettings,
    }

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data, on the device."""
        return dataset_of(self.context)

    @functools.cached_property
    def images(self) -> tuple[Tensor, Tensor]:
        """Intensities in [0, 1] of training and test images, `(N, pixels)`, the mean over their channels."""
        most = 255.0 if self.dataset.name != "digits" else 240.0
        train, test = (
            split.images.float().mean(1).flatten(1) / most for split in (self.dataset.train, self.dataset.test)
        )
        return train, test

    def prepare(self, role: str, settings: Any) -> None:
        if role in self.uses_data and (size := settings.vae.batch_size) > len(self.images[0]):
            raise ValueError(f"vae.batch_size={size} exceeds the {len(self.images[0])} training images")

    def uses(self, role: str, settings: Any) -> tuple[str, ...]:
        return (REFERENCE,) if role == "points" else ()

    def sizes(self, role: str, settings: Any) -> tuple[int, ...]:
        return (settings.vae.categories,) * settings.vae.latents

    def estimates(self, settings: EstimatesSettings, evaluations: int) -> int:
        return max(20, settings.vae.estimates // evaluations)

    def vae(self, model: Model, mean: Tensor, seed: int) -> Vae:
        """A new network. Equal seeds give equal weights for all estimators."""
        with torch.random.fork_rng(devices=[]), self.context.device:
            torch.manual_seed(seed)
            return Vae(mean, model.latents, model.categories, model.layers, model.hidden)

    def training(
        self,
        model: Model,
        make: Make | None,
        images: Tensor,
        seed: int,
        *,
        lr: float,
        control_lr: float,
        steps: int | None = None,
    ) -> Run:
        """A new training run, see `Run`."""
        with self.context.device:
            estimator = None if make is None else make((model.categories,) * model.latents)
        vae = self.vae(model, images.mean(0), seed)
        rates = {"lr": lr, "control_lr": control_lr}
        return Run(vae, estimator, images, **rates, batch_size=model.batch_size, seed=seed, steps=steps)

    def _trained(self, how: Training, make: Make, seed: int, steps: int | None = None) -> Run:
        return self.training(how, make, self.images[0], seed, lr=how.lr, control_lr=how.control_lr, steps=steps)

    @functools.lru_cache(maxsize=1)  # noqa: B019  one task lives as long as the sweep
    def _reference_run(self, how: Training, seed: int) -> tuple[Run, dict[str, dict[str, Any]]]:
        run = self._trained(how, lambda sizes: estimators.get("rloo", sizes=sizes, samples=4), seed)

        def make() -> dict[str, dict[str, Any]]:
            ends = {name: round(part * how.steps) for name, part in POINTS.items()}
            at: dict[str, dict[str, Any]] = {}
            for step in range(how.steps + 1):
                at |= {name: run.snapshot() for name, end in ends.items() if step == end}
                if step < how.steps:
                    run.step()
                    self.context.progress("reference run", step + 1, how.steps)
            return at

        return run, self.kept("reference-run", seed, how, make)

    def points(self, settings: PointsSettings, seed: int) -> Iterator[Point]:
        how = settings.vae
        run, at = self._reference_run(narrow(how, Training), seed)
        device = self.context.device
        generator = torch.Generator(device).manual_seed(seed_of("vae", "measured", seed))
        x = torch.bernoulli(self.images[1][:MEASURED], generator=generator)
        f = run.vae.reconstruction(x)
        for name, progress in POINTS.items():
            run.restore(at[name])
            with torch.no_grad():
                logits = run.vae.logits(x).unbind(-2)

            def along(estimator: Estimator, name: str = name) -> None:
                noise = torch.Generator(device).manual_seed(seed_of("vae", "ride", seed, name))

                def moments() -> Iterator[tuple[Callable[[Sites], Tensor], Sites]]:
                    for _ in range(how.ride):
                        pick = torch.randint(len(run.images), (MEASURED,), generator=noise, device=device)
                        other = torch.bernoulli(run.images[pick], generator=noise)
                        yield run.vae.reconstruction(other), run.vae.logits(other).detach().unbind(-2)

                ride(estimator, moments(), control_lr=how.control_lr, noise=noise)

            weights = list(run.vae.decoder.parameters())
            yield Point(name, progress, logits, weights, lambda stream, i: f, along, stochastic=False)

    def workload(self, role: str, settings: StepSettings, make: Make | None, size: Size | None = None) -> _Repeated:
        # time and memory do not depend on the content of images
        blank = torch.zeros(settings.vae.batch_size, 28 * 28, device=self.context.device)
        images = self.images[0] if role == "step" else blank
        return _Repeated(self.training(settings.vae, make, images, 0, lr=TIMED_LR, control_lr=TIMED_LR))

    def alone(self, settings: StepSettings) -> tuple[Callable[[Sites], Tensor], Sites]:
        x = torch.zeros(settings.vae.batch_size, 28 * 28, device=self.context.device)
        vae = self.vae(settings.vae, x.mean(0), 0)
        return vae.reconstruction(x), vae.logits(x).detach().unbind(-2)

    def run(self, settings: RunSettings, make: Make | None, seed: int, keeper: Keeper) -> list[dict[str, Any]]:
        assert make is not None
        train, test = self.images
        run = self._trained(settings.vae, make, seed, settings.vae.steps)

        def watch() -> float:
            lost, rate = bound(run.vae, test[:SHOWN], 1)
            return -float((lost + rate).mean())

        context = self.context
        found = curve.train(run, watch, keeper, moments=20, device=context.device, progress=context.progress)
        rows = []
        for part, images in (("train", train[: len(test)]), ("test", test)):
            lost, rate = bound(run.vae, images, SAMPLES)
            for metric, values in (("elbo", -(lost + rate)), ("distortion", lost), ("rate", rate)):
                rows.append(row(metric, float(values.mean()), part=part, n=len(values), unit="nats"))
        return [*rows, *(row("curve_elbo", value, x=at, unit="nats") for at, value in found)]


class _Repeated:
    """A step of a run, on one minibatch."""

    def __init__(self, run: Run) -> None:
        self.run, self.x = run, run.minibatch()

    def step(self) -> None:
        self.run.train_on(self.x)

    def tensors(self) -> dict[str, list[Tensor]]:
        return self.run.tensors()
