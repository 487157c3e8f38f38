"""What a rival of VMO is given, and what it returns.

A rival has the recipe, the number of epochs, the initial weights and the order of the images of the VMO run with the
same seed. It must end with a network whose MACs are near the same target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from vmo.data import Dataset
from vmo.recipe import Recipe
from vmo.space import Space
from vmo.target import Target
from vmo.train import Trainer
from vmo.wrn import WideResNet


@dataclass(frozen=True)
class Start:
    """The start of a run.

    Attributes:
        network: the full network with its initial weights.
        dataset: the data.
        recipe: hyperparameters; `phi_lr` and `phi_optimizer` are for whatever chooses the channels.
        space: the widths that VMO chooses from.
        target: the budget.
        seed: the seed of everything else.
    """

    network: WideResNet
    dataset: Dataset
    recipe: Recipe
    space: Space
    target: Target
    seed: int


@dataclass(frozen=True, kw_only=True)
class Rival(ABC):
    """A rival. Its fields are its options, declared as in `estimators.options`.

    Attributes:
        version: part of a cell's identity; raise it when the training changes.
    """

    version: ClassVar[int] = 1

    @property
    def uses(self) -> tuple[str, ...]:
        """Labels of the estimators that it uses."""
        return ()

    @abstractmethod
    def trainer(self, start: Start) -> Trainer:
        """A new run.

        Raises:
            ValueError: options and data do not fit; one line.
        """
