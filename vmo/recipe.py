"""How a network is trained: all hyperparameters of a run except its seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vmo.schedule import SCHEDULES

RECIPES: dict[str, dict[str, Any]] = {"wrn": {}, "fast": {"schedule": "triangular", "crop": 0.5}}
"""Recipes by name, as differences from the defaults: the Wide ResNet recipe, and one for few epochs."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters. The defaults are those of Wide ResNets on CIFAR.

    Args:
        epochs: passes over the training set; a last partial minibatch is skipped.
        batch_size: images per step.
        lr: learning rate of the weights, which SGD with Nesterov momentum trains.
        schedule: of `lr`, see `vmo.schedule`: "step" multiplies it by 0.2 at 30, 60 and 80 % of the run, and
            "triangular" has lr as its peak.
        crop: fraction of the data set's padding that random crops of training images use; 0: no crop.
        momentum: momentum of SGD.
        weight_decay: weight decay of all weights.
        phi_lr: learning rate of the logits φ.
        phi_optimizer: optimizer of φ: "adam", or "sgd" for the weights' optimizer and schedule without weight decay.
        control_lr: Adam's learning rate for the parameters of control variates.
        groups: architectures per step, each on its own part of the minibatch.
        freeze: number of last epochs with q fixed, in which only its most probable architecture trains. The VMO paper
            proposes this against lost accuracy.
        continued: further epochs after `epochs`, in which that architecture trains with the schedule of a new run.
        learn: whether q is learned. If not, q keeps its initial value, and the run's architecture is a sample of it.
        bf16: autocast to bfloat16.
        compile: compile the network. Samples are then masks instead of slices, see `vmo.compiled`.

    Raises:
        ValueError: a value is out of range; the message gives the range.
    """

    epochs: int = 200
    batch_size: int = 128
    lr: float = 0.1
    schedule: str = "step"
    crop: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    phi_lr: float = 1e-2
    phi_optimizer: str = "adam"
    control_lr: float = 1e-2
    groups: int = 1
    freeze: int = 0
    continued: int = 0
    learn: bool = True
    bf16: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.phi_optimizer not in ("adam", "sgd"):
            raise ValueError(f"phi_optimizer must be 'adam' or 'sgd', got {self.phi_optimizer!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        for name in ("epochs", "batch_size", "groups"):
            if not isinstance(count := getattr(self, name), int) or count < 1:
                raise ValueError(f"{name} must be positive and whole, got {count}")
        if not 0 <= self.crop <= 1:
            raise ValueError(f"crop must lie in [0, 1], got {self.crop}")
        for name in ("lr", "momentum", "weight_decay", "phi_lr", "control_lr"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if not isinstance(self.freeze, int) or not 0 <= self.freeze <= self.epochs:
            raise ValueError(f"freeze must lie in 0 … {self.epochs} whole epochs, got {self.freeze}")
        if not isinstance(self.continued, int) or self.continued < 0:
            raise ValueError(f"continued must be whole and not negative, got {self.continued}")
        if self.batch_size % self.groups:
            raise ValueError(f"groups must divide the batch size of {self.batch_size}, got {self.groups}")
