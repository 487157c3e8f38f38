"""How a network is trained: every number of a run but its seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vmo.schedule import SCHEDULES

RECIPES: dict[str, dict[str, Any]] = {"wrn": {}, "fast": {"schedule": "triangular", "crop": 0.5}}
"""Recipes by name, as what differs from the default: that of Wide ResNets, and one for few epochs."""


@dataclass(frozen=True)
class Recipe:
    """The defaults are those of Wide ResNets on CIFAR.

    Args:
        epochs: passes over the training set; the last partial minibatch of each is skipped.
        batch_size: images per step.
        lr: of the weights: SGD with Nesterov momentum.
        schedule: of that rate, see `vmo.schedule`: "step", multiplied by 0.2 at 30, 60 and 80 % of the run, or
            "triangular", with lr as its peak.
        crop: part of the data set's padding out of which training images are cropped at random; 0: no crop.
        momentum: of that SGD.
        weight_decay: on all weights.
        phi_lr: of the logits.
        phi_optimizer: "adam", or "sgd" for the weights' own optimizer and schedule without weight decay.
        control_lr: Adam's, for the parameters of control variates.
        groups: architectures per step, each on its own part of the minibatch.
        freeze: epochs at the end in which q stays as it is and the weights of its most probable architecture train on
            alone, as the VMO paper proposes against lost accuracy.
        continued: epochs after these, in which that architecture trains on with the learning rate of a new run.
        learn: whether q is learned. If not it stays as it begins, and the run comes to a sample of it.
        bf16: autocast to bfloat16.
        compile: compile the network; samples then are masks and not slices, see `vmo.compiled`.

    Raises:
        ValueError: a number is out of its range, which the message names.
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
