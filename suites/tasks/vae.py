"""The categorical VAE, on which papers of this field compare estimators.

    −ELBO(x) = E_{z ~ q(z|x)} [−log p(x | z)] + KL(q(z|x) ‖ p(z)),    x ~ Bernoulli(intensity), new at every step

It has L latent variables of K categories, a uniform p(z) and Bernoulli pixels. Encoder and decoder are linear or have
hidden layers. The KL divergence is differentiated exactly, so the estimator's objective is only −log p(x | z), with one
row per image.

Jang, Gu, Poole 2017, arXiv:1611.01144; Maddison, Mnih, Teh 2017, arXiv:1611.00712.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from results.table import row
from suites.settings import Group, Settings
from suites.tasks.amortised import SAMPLES, Estimates, Ride, Step
from suites.tasks.amortised import Training as Length
from suites.tasks.amortised_model import Batch, Model
from suites.tasks.base import Truth
from suites.tasks.pixels import PixelsTask, bound
from suites.tasks.vae_model import Vae


class Shape(Step):
    """The network and its minibatches."""

    latents: int = Field(16, ge=1)
    """Categorical latent variables, the sites."""
    categories: int = Field(10, ge=2)
    """Categories of each latent variable."""
    layers: int = Field(2, ge=0)
    """Hidden layers of the encoder and of the decoder; 0: both are linear."""


class Training(Shape, Length):
    """The network and its training."""


class Reference(Training, Ride):
    """The reference run with its points."""


class VaeGroup(Reference, Estimates, Group, name="vae"):
    """The categorical VAE."""

    presets: ClassVar = {
        "smoke": {"steps": 40, "estimates": 100, "ride": 4},
        "cpu": {"steps": 50_000, "estimates": 20_000, "batch_size": 128},
        "paper": {"steps": 500_000, "estimates": 20_000, "batch_size": 128},
    }


class StepSettings(Settings):
    """Handed for "step", "timed" and "counted"."""

    vae: Shape


class RunSettings(Settings):
    """Handed for "run"."""

    vae: Training


class PointsSettings(Settings):
    """Handed for "points"."""

    vae: Reference


class EstimatesSettings(Settings):
    """Handed for "estimates"."""

    vae: Estimates


class VaeTask(PixelsTask):
    """The VAE task."""

    name = "vae"
    groups = (VaeGroup, Truth)
    group = "vae"
    training = Training
    roles: ClassVar = PixelsTask.roles | {
        "points": PointsSettings,
        "estimates": EstimatesSettings,
        "step": StepSettings,
        "timed": StepSettings,
        "counted": StepSettings,
        "run": RunSettings,
    }

    def shape(self, how: Any) -> tuple[int, int]:
        return how.latents, how.categories

    def model(self, how: Any, examples: Batch) -> Vae:
        return Vae(examples[0].mean(0), how.latents, how.categories, how.layers, how.hidden)

    def rows(self, model: Model, part: str, examples: Batch) -> Iterator[dict[str, Any]]:
        """Besides the ELBO: its two parts."""
        lost, rate = bound(model, examples[0], SAMPLES)
        for metric, values in (("elbo", -(lost + rate)), ("distortion", lost), ("rate", rate)):
            yield row(metric, float(values.mean()), part=part, n=len(values), unit="nats")
