"""The settings of the tasks depth, width and joint: a Wide ResNet, how it is trained, and what is measured of it.

Views stand first, from what every step depends on to what a whole run depends on; then the groups. What each role is
handed of them: `suites.tasks.network_roles`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import AfterValidator, Field, model_validator

from suites import labels
from suites.settings import Group, Settings

WEIGHTS = {"hard": "reinforce[baseline=none]", "soft": "concrete"}
"""Short words for estimators whose samples the weights may train on."""
OF_NO_ESTIMATOR = ("own", "mode")
TRAINED_ON = "must be own, mode, hard, soft or an estimator"


def _of_resnet(depth: int) -> int:
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"a Wide ResNet has 6n + 4 layers: 10, 16, 22, 28, …, and not {depth}")
    return depth


def _trained_on(text: str) -> str:
    """The canonical label. Raises ValueError for what is neither a short word nor an estimator."""
    if text in OF_NO_ESTIMATOR:
        return text
    try:
        label = labels.parse(WEIGHTS.get(text, text))
    except ValueError as error:
        raise ValueError(f"{TRAINED_ON}: {error}") from None
    if label.name in labels.BASELINES:
        raise ValueError(f"{TRAINED_ON}, and {label.name} is a baseline")
    return str(label)


Depth = Annotated[int, AfterValidator(_of_resnet)]


class Size(Settings):
    """WRN-depth-widen."""

    depth: Depth = 10
    """Layers, 6n + 4."""
    widen: int = Field(1, ge=1)
    """Widening factor."""


class Grid(Settings):
    """The grid of widths."""

    width_step: int = Field(8, ge=1)
    """Channels per category of a width."""


class Precision(Settings):
    """Arithmetic of a step."""

    bf16: bool = False
    """Autocast to bfloat16."""


class Timing(Precision):
    """What the cost of a step depends on."""

    weights: Annotated[str, AfterValidator(_trained_on)] = "own"
    """What the weights train on: "own", the samples of the estimator of φ; or, in a pass of their own, "hard" samples,
    "soft" ones (Concrete's, as the paper anneals it), those of any other estimator, such as
    "concrete[temperature=1.0]", or "mode", the architecture that q stands for at that step."""


class PlainStep(Precision):
    """A step of plain training."""

    batch_size: int = Field(64, ge=1)
    """Images of a step."""
    lr: float = Field(0.1, ge=0)
    """Learning rate of SGD on the weights at the start."""
    compile: bool = False
    """Compile the network; samples then are masks and not slices."""


class LearningStep(PlainStep):
    """A step that learns φ."""

    phi_lr: float = Field(0.05, ge=0)
    """Learning rate of φ."""
    phi_optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of φ; "sgd" is that of the weights, without weight decay."""
    control_lr: float = Field(0.01, ge=0)
    """Learning rate of Adam on control variates."""


class WholeStep(Timing, LearningStep):
    """Everything that a step depends on."""


class Epochs(Settings):
    """The length of a run."""

    epochs: int = Field(8, ge=1)
    """Passes over the training images."""


class AnyRun(Epochs):
    """What every whole run depends on beside its steps."""

    recipe: Literal["wrn", "fast"] = "wrn"
    """ "wrn": the learning rate falls to a fifth after 30, 60 and 80 % of the run, as for Wide ResNets. "fast", for few
    epochs: it rises to `lr` in the first fifth of the run and falls to 1 % in the rest, and images are shifted by half
    as much."""
    images: int = Field(0, ge=0)
    """Training images, the same ones in every run; 0: all."""
    validation: float = Field(0.0, ge=0, lt=1)
    """Part of the training images that is left out and takes the place of the test images; 0: none. For choosing
    settings."""


class PlainRun(AnyRun, PlainStep):
    """A run of plain training."""


class Network(Size, Grid, Group, name="network"):
    """The network that is trained, in depth, width and joint."""

    presets: ClassVar = {
        "cpu": {"depth": 16, "width_step": 4},
        "study": {"depth": 16, "width_step": 4},
        "paper": {"depth": 28, "widen": 10, "width_step": 1},
    }


class Train(WholeStep, AnyRun, Group, name="train"):
    """How a network is trained, in depth, width and joint."""

    freeze: int = Field(0, ge=0)
    """Epochs at the end in which q is frozen at its most probable architecture."""
    continued: int = Field(0, ge=0)
    """Epochs after `epochs` in which that architecture trains on, with the learning rate of a new run."""
    held_out: float = Field(0.0, ge=0, lt=1)
    """Part of the training images from which φ alone learns, and the weights do not; 0: both learn from all."""

    presets: ClassVar = {
        "smoke": {"epochs": 2},
        "cpu": {"epochs": 4, "batch_size": 128, "phi_lr": 0.02, "bf16": True},
        "study": {"recipe": "fast", "images": 10_000, "epochs": 48, "batch_size": 128, "lr": 0.2, "phi_lr": 0.02},
        "paper": {"epochs": 200, "batch_size": 128, "phi_lr": 0.01, "bf16": True, "compile": True},
    }

    @model_validator(mode="after")
    def _freezes_within(self) -> Self:
        if self.freeze > self.epochs:
            raise ValueError(f"freeze={self.freeze} exceeds the {self.epochs} epochs of train.epochs")
        return self

    @model_validator(mode="after")
    def _holds_out_for_phi(self) -> Self:
        if self.held_out and self.weights == "own":
            raise ValueError("held_out needs train.weights other than own: what φ alone learns from trains no weights")
        return self

    @classmethod
    def impossible(cls, preset: str) -> Mapping[str, Any]:
        slow = {"bf16": False} if preset == "cpu" and not native_bf16() else {}
        wanted = cls.presets.get(preset, {}).get("compile", False)
        return slow | ({"compile": False} if wanted and not torch.cuda.is_available() else {})


class Penalty(Group, name="penalty"):
    """What a large architecture costs."""

    kind: Literal["macs", "parameters", "literal"] = "macs"
    """What is penalised: "macs" or "parameters" (gamma nats for the full network), or "literal", the VMO paper's
    1e-3 d + 1e-8 Σ k, whatever gamma is."""
    gamma: float = Field(0.3, ge=0)
    """Of a normalised penalty: nats for the full network."""
    target_macs: float = Field(0.0, ge=0, le=1)
    """Part of the full network's MACs that q is held to instead of being penalised; 0: none."""

    presets: ClassVar = {"cpu": {"gamma": 0.05}, "study": {"target_macs": 0.5}, "paper": {"kind": "literal"}}


class Trajectory(Group, name="trajectory"):
    """The reference run along which bias and variance are measured, in depth, width and joint."""

    steps: int = Field(300, ge=1)
    """Training steps."""
    ride: int = Field(50, ge=0)
    """Steps for which a stateful estimator adapts before each point."""

    presets: ClassVar = {
        "smoke": {"steps": 24, "ride": 4},
        "cpu": {"steps": 600},
        "study": {"steps": 600},
        "paper": {"steps": 20_000},
    }


class Gradient(Group, name="gradient"):
    """How often an estimator is measured at a point, in depth, width and joint."""

    estimates: int = Field(200, ge=20)
    """Most estimates per point."""
    budget: int = Field(400, ge=1)
    """Most evaluations of the objective per point; at least 20 estimates are made."""

    presets: ClassVar = {
        "smoke": {"estimates": 20, "budget": 60},
        "cpu": {"estimates": 400, "budget": 3000},
        "study": {"estimates": 400, "budget": 3000},
        "paper": {"estimates": 400, "budget": 20_000},
    }


class Timed(Group, name="timed"):
    """The network and minibatch whose training step is timed, on 32×32 images."""

    depth: Depth = 16
    """Layers, 6n + 4."""
    widen: int = Field(2, ge=1)
    """Widening factor."""
    batch: int = Field(16, ge=1)
    """Images of a step."""

    presets: ClassVar = {
        "smoke": {"depth": 10, "widen": 1},
        "cpu": {"widen": 4, "batch": 128},
        "study": {"widen": 4, "batch": 128},
        "paper": {"depth": 28, "widen": 10, "batch": 128},
    }


class Counted(Group, name="counted"):
    """The network and minibatch whose training step's storage is counted, on 32×32 images."""

    depth: Depth = 28
    """Layers, 6n + 4."""
    widen: int = Field(10, ge=1)
    """Widening factor."""
    batch: int = Field(128, ge=1)
    """Images of a step."""


GROUPS = (Network, Train, Penalty, Trajectory, Gradient, Timed, Counted)


def native_bf16() -> bool:
    """Whether this processor computes in bfloat16 by itself; emulated, it takes twelve times as long as float32."""
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
