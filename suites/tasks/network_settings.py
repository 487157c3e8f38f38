"""The settings of the tasks depth, width and joint: the Wide ResNet, its training, and its measurements.

Views come first, from those of every step to those of a whole run; then the groups. `suites.tasks.network_roles` says
which role is handed which view.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import AfterValidator, Field, model_validator

from suites import labels
from suites.settings import Group, Settings

WEIGHTS = {"hard": "reinforce[baseline=none]", "soft": "concrete"}
"""Short names for estimators whose samples the weights may train on."""
OF_NO_ESTIMATOR = ("own", "mode")
TRAINED_ON = "must be own, mode, hard, soft or an estimator"


def _of_resnet(depth: int) -> int:
    if depth < 10 or (depth - 4) % 6:
        raise ValueError("a Wide ResNet has 6n + 4 layers (10, 16, 22, 28, …)")
    return depth


def _trained_on(text: str) -> str:
    """The canonical label. Raises ValueError for a text that is neither a short name nor an estimator."""
    if text in OF_NO_ESTIMATOR:
        return text
    try:
        label = labels.parse(WEIGHTS.get(text, text))
    except ValueError as error:
        raise ValueError(f"{TRAINED_ON}: {error}") from None
    if not label.is_estimator:
        raise ValueError(f"{TRAINED_ON}, and {label.name} is a baseline")
    return str(label)


Depth = Annotated[int, AfterValidator(_of_resnet)]


class Size(Settings):
    """WRN-depth-widen."""

    depth: Depth = 10
    """Number of layers, 6n + 4."""
    widen: int = Field(1, ge=1)
    """Widening factor."""


class Grid(Settings):
    """The grid of widths."""

    width_step: int = Field(8, ge=1)
    """Channels per category of a width; must divide every width."""


class Precision(Settings):
    """The dtype of a step."""

    bf16: bool = False
    """Whether steps run under autocast to bfloat16."""


class Timing(Precision):
    """Settings that determine the cost of a step."""

    weights: Annotated[str, AfterValidator(_trained_on)] = "own"
    """Samples that the weights train on. "own": those of the estimator of φ. The others need a pass of their own:
    "hard": hard samples; "soft": Concrete's, annealed as in the paper; any other estimator, e.g.
    "concrete[temperature=1.0]": its samples; "mode": the architecture chosen from q at that step."""


class PlainStep(Precision):
    """A step of plain training."""

    batch_size: int = Field(64, ge=1)
    """Images per step."""
    lr: float = Field(0.1, ge=0)
    """Learning rate of SGD for the weights; its maximum over the run."""
    compile: bool = False
    """Whether to compile the network; samples are then masks instead of slices."""


class LearningStep(PlainStep):
    """A step that learns φ."""

    phi_lr: float = Field(0.05, ge=0)
    """Learning rate of the logits φ."""
    phi_optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of φ; "sgd" is the weights' optimizer and schedule, without weight decay."""
    control_lr: float = Field(0.01, ge=0)
    """Learning rate of Adam for control variates."""


class WholeStep(Timing, LearningStep):
    """All settings of a step."""


class Epochs(Settings):
    """The length of a run."""

    epochs: int = Field(8, ge=1)
    """Passes over the training images."""


class AnyRun(Epochs):
    """Settings of every whole run, besides those of its steps."""

    recipe: Literal["wrn", "fast"] = "wrn"
    """Schedule and augmentation. "wrn": the learning rate is multiplied by 0.2 after 30, 60 and 80 % of the run, as for
    Wide ResNets. "fast", for few epochs: the learning rate rises to `lr` in the first fifth of the run and falls to 1 %
    of it in the rest; random crops use half of the padding."""
    images: int = Field(0, ge=0)
    """Number of training images, the same in every run; 0: all."""
    validation: float = Field(0.0, ge=0, lt=1)
    """Fraction of the training images that is held out and replaces the test images, for choosing settings; 0: none."""


class PlainRun(AnyRun, PlainStep):
    """A run of plain training."""


class Network(Size, Grid, Group, name="network"):
    """The network of the tasks depth, width and joint."""

    presets: ClassVar = {
        "cpu": {"depth": 16, "width_step": 4},
        "study": {"depth": 16, "width_step": 4},
        "paper": {"depth": 28, "widen": 10, "width_step": 1},
    }


class Train(WholeStep, AnyRun, Group, name="train"):
    """Training in the tasks depth, width and joint."""

    freeze: int = Field(0, ge=0)
    """Number of last epochs with q fixed, in which only its most probable architecture trains."""
    continued: int = Field(0, ge=0)
    """Further epochs after `epochs`, in which that architecture trains with the schedule of a new run."""
    held_out: float = Field(0.0, ge=0, lt=1)
    """Fraction of the training images that only φ learns from; 0: φ and the weights learn from all images."""

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
            raise ValueError("held_out needs train.weights other than own, because φ alone learns from these images")
        return self

    @classmethod
    def impossible(cls, preset: str) -> Mapping[str, Any]:
        slow = {"bf16": False} if preset == "cpu" and not native_bf16() else {}
        wanted = cls.presets.get(preset, {}).get("compile", False)
        return slow | ({"compile": False} if wanted and not torch.cuda.is_available() else {})


class Penalty(Group, name="penalty"):
    """The penalty on large architectures."""

    kind: Literal["macs", "parameters", "literal"] = "macs"
    """What is penalised. "macs" or "parameters": as a fraction of the full network's, times gamma. "literal": the VMO
    paper's 1e-3 d + 1e-8 Σ k (depth d, widths k), without gamma."""
    gamma: float = Field(0.3, ge=0)
    """Penalty of the full network in nats, for "macs" and "parameters"."""
    target_macs: float = Field(0.0, ge=0, le=1)
    """Target for q's expected MACs, as a fraction of the full network's; replaces the penalty. 0: no target."""

    presets: ClassVar = {"cpu": {"gamma": 0.05}, "study": {"target_macs": 0.5}, "paper": {"kind": "literal"}}


class Trajectory(Group, name="trajectory"):
    """The reference run on which bias and variance are measured, in the tasks depth, width and joint."""

    steps: int = Field(300, ge=1)
    """Training steps."""
    ride: int = Field(50, ge=0)
    """Steps on which an adaptive estimator (with a baseline or control variate) adapts before each point."""

    presets: ClassVar = {
        "smoke": {"steps": 24, "ride": 4},
        "cpu": {"steps": 600},
        "study": {"steps": 600},
        "paper": {"steps": 20_000},
    }


class Gradient(Group, name="gradient"):
    """The number of estimates at each point, in the tasks depth, width and joint."""

    estimates: int = Field(200, ge=20)
    """Most estimates per point."""
    budget: int = Field(400, ge=1)
    """Most evaluations of the objective per point, but at least 20 estimates."""

    presets: ClassVar = {
        "smoke": {"estimates": 20, "budget": 60},
        "cpu": {"estimates": 400, "budget": 3000},
        "study": {"estimates": 400, "budget": 3000},
        "paper": {"estimates": 400, "budget": 20_000},
    }


class Timed(Group, name="timed"):
    """The network and minibatch for timing a training step, on 32×32 images."""

    depth: Depth = 16
    """Number of layers, 6n + 4."""
    widen: int = Field(2, ge=1)
    """Widening factor."""
    batch: int = Field(16, ge=1)
    """Images per step."""

    presets: ClassVar = {
        "smoke": {"depth": 10, "widen": 1},
        "cpu": {"widen": 4, "batch": 128},
        "study": {"widen": 4, "batch": 128},
        "paper": {"depth": 28, "widen": 10, "batch": 128},
    }


class Counted(Group, name="counted"):
    """The network and minibatch for counting the memory of a training step, on 32×32 images."""

    depth: Depth = 28
    """Number of layers, 6n + 4."""
    widen: int = Field(10, ge=1)
    """Widening factor."""
    batch: int = Field(128, ge=1)
    """Images per step."""


GROUPS = (Network, Train, Penalty, Trajectory, Gradient, Timed, Counted)


def native_bf16() -> bool:
    """Whether this processor supports bfloat16; if emulated, it takes twelve times as long as float32."""
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
