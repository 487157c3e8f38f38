"""The categorical VAE, on which the papers of this field compare their estimators.

    −ELBO(x) = E_{z ~ q(z|x)} [−log p(x | z)] + KL(q(z|x) ‖ p(z)),    x ~ Bernoulli(intensity) anew at every step

L latent variables of K categories, p(z) uniform, Bernoulli pixels; encoder and decoder linear or with hidden layers.
The divergence is known exactly and is differentiated as it stands, so that an estimator sees −log p(x | z) alone, one
row per image. Losses are sums over the images of a minibatch: Adam does not see the factor, and what an estimator
learns is in nats per image, whatever the size of the minibatch.

Jang, Gu, Poole 2017, arXiv:1611.01144; Maddison, Mnih, Teh 2017, arXiv:1611.00712.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

import estimators
from estimators import Estimator
from results.table import row
from suites.tasks import curve
from suites.tasks.base import Make, Point, Sites, Task, seed_of
from suites.tasks.vae_model import Run, Vae, bound
from vmo.checkpoint import Keeper
from vmo.data import Dataset, load
from vmo.learner import ride

POINTS = {"uniform": 0.0, "mid": 0.5, "peaked": 1.0}
MEASURED = 4  # images whose logits' gradients are measured
SHOWN = 1000  # images of a point of the training curve
SAMPLES = 10  # of z per image, of the final ELBO
_MODEL = ("latents", "categories", "vae_layers", "vae_hidden")
_TRAINED = (*_MODEL, "vae_steps", "vae_lr", "batch_size", "control_lr")

_load = functools.lru_cache(maxsize=2)(load)


class VaeTask(Task):
    """The VAE task.

    Bias and variance are those of the logits' gradients of four test images, at three points of one training run by
    leave-one-out with four samples; a stateful estimator rides along on minibatches of four training images there.
    """

    name = "vae"
    plain = False
    uses_data = frozenset({"bias", "variance", "accuracy"})
    settings: ClassVar[dict[str, tuple[str, ...]]] = {
        "bias": (*_TRAINED, "ride", "vae_estimates", "references"),
        "variance": (*_TRAINED, "ride", "vae_estimates"),
        "memory": (*_MODEL, "batch_size"),
        "overhead": (*_MODEL, "batch_size", "overhead_pairs"),
        "accuracy": _TRAINED,
    }

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data, on the device."""
        return _load(self.context.dataset, self.context.data_root, self.context.device)

    @functools.cached_property
    def images(self) -> tuple[Tensor, Tensor]:
        """Intensities in [0, 1] of training and test images, `(N, pixels)`, the mean over their channels."""
        most = 255.0 if self.dataset.name != "digits" else 240.0
        train, test = (
            split.images.float().mean(1).flatten(1) / most for split in (self.dataset.train, self.dataset.test)
        )
        return train, test

    def prepare(self) -> None:
        if self.preset.batch_size > len(self.images[0]):
            raise ValueError(f"batch_size={self.preset.batch_size} exceeds the {len(self.images[0])} training images")

    def sizes(self, suite: str) -> tuple[int, ...]:
        return (self.preset.categories,) * self.preset.latents

    def estimates(self, evaluations: int) -> int:
        return max(20, self.preset.vae_estimates // evaluations)

    def vae(self, mean: Tensor, seed: int) -> Vae:
        """A fresh network. Equal seeds give equal weights whatever the estimator."""
        p = self.preset
        with torch.random.fork_rng(devices=[]), self.context.device:
            torch.manual_seed(seed)
            return Vae(mean, p.latents, p.categories, p.vae_layers, p.vae_hidden)

    def run(self, make: Make | None, images: Tensor, seed: int, steps: int | None = None) -> Run:
        """A fresh training run; see `Run`."""
        p = self.preset
        with self.context.device:
            estimator = None if make is None else make(self.sizes("accuracy"))
        vae = self.vae(images.mean(0), seed)
        rates = {"lr": p.vae_lr, "control_lr": p.control_lr}
        return Run(vae, estimator, images, **rates, batch_size=p.batch_size, seed=seed, steps=steps)

    @functools.lru_cache(maxsize=1)  # noqa: B019  one task lives as long as the sweep
    def _reference_run(self, seed: int) -> tuple[Run, dict[str, dict[str, Any]]]:
        run = self.run(lambda sizes: estimators.get("rloo", sizes=sizes, samples=4), self.images[0], seed)

        def make() -> dict[str, dict[str, Any]]:
            ends = {name: round(part * self.preset.vae_steps) for name, part in POINTS.items()}
            at: dict[str, dict[str, Any]] = {}
            for step in range(self.preset.vae_steps + 1):
                at |= {name: run.snapshot() for name, end in ends.items() if step == end}
                if step < self.preset.vae_steps:
                    run.step()
                    self.context.progress("reference run", step + 1, self.preset.vae_steps)
            return at

        return run, self.kept("reference-run", seed, _TRAINED, make)

    def points(self, seed: int) -> Iterator[Point]:
        run, at = self._reference_run(seed)
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
                    for _ in range(self.preset.ride):
                        pick = torch.randint(len(run.images), (MEASURED,), generator=noise, device=device)
                        other = torch.bernoulli(run.images[pick], generator=noise)
                        yield run.vae.reconstruction(other), run.vae.logits(other).detach().unbind(-2)

                ride(estimator, moments(), control_lr=self.preset.control_lr, noise=noise)

            weights = list(run.vae.decoder.parameters())
            yield Point(name, progress, logits, weights, lambda stream, i: f, along, stochastic=False)

    def workload(self, make: Make | None, suite: str) -> _Repeated:
        if suite == "variance":
            return _Repeated(self.run(make, self.images[0], 0))
        # neither time nor storage depends on what the images show
        blank = torch.zeros(self.preset.batch_size, 28 * 28, device=self.context.device)
        return _Repeated(self.run(make, blank, 0))

    def alone(self, suite: str) -> tuple[Callable[[Sites], Tensor], Sites]:
        x = torch.zeros(self.preset.batch_size, 28 * 28, device=self.context.device)
        vae = self.vae(x.mean(0), 0)
        return vae.reconstruction(x), vae.logits(x).detach().unbind(-2)

    def train(
        self,
        make: Make | None,
        seed: int,
        keeper: Keeper,
    ) -> list[dict[str, Any]]:
        assert make is not None
        train, test = self.images
        run = self.run(make, train, seed, self.preset.vae_steps)

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
