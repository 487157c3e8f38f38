"""Runs that start with the full network and keep some of the hidden channels of every block, under a budget.

Every channel has a score. When the choice is made, the channels with the largest scores are kept, see `vmo.channels`.
They are put first in every block, so that the network of the run is cut like one with learned widths.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vmo import channels
from vmo.data import Dataset
from vmo.extract import extract
from vmo.recipe import Recipe
from vmo.space import Architecture
from vmo.target import Target
from vmo.train import Trainer
from vmo.wrn import WideResNet


class Narrowing(Trainer):
    """A run that keeps the channels with the largest scores.

    Args:
        network: the full network, on the data's device.
        dataset: training data on the same device.
        recipe: hyperparameters.
        target: the budget.
        seed: see `Trainer`.

    Attributes:
        kept: how many channels each block keeps, its first ones; None before the choice.
    """

    def __init__(self, network: WideResNet, dataset: Dataset, recipe: Recipe, *, target: Target, seed: int = 0) -> None:
        self.target = target
        self.kept: tuple[int, ...] | None = None
        super().__init__(network, dataset, recipe, seed=seed)

    @abstractmethod
    def scores(self) -> Sequence[Tensor]:
        """The score of every channel, `(hidden,)` for each block. Used only before the choice."""

    def factors(self) -> Sequence[Tensor] | None:
        """What every channel is multiplied by after the choice, `(hidden,)` for each block; None: 1."""
        return None

    def narrow(self) -> None:
        """Make the choice: fold the factors into the weights, and put the kept channels first."""
        self.kept = self._arrange(self.network, self.learner.optimizers["weights"])

    def _arrange(self, network: WideResNet, optimizer: Any = None) -> tuple[int, ...]:
        scores, factors = self.scores(), self.factors()
        if factors is not None:
            channels.fold(network, factors)
        channels.sort(network, scores, optimizer)
        return self._widths(scores)

    def _widths(self, scores: Sequence[Tensor]) -> tuple[int, ...]:
        return channels.largest(self.network.config, self.dataset.shape[-1], scores, self.target.ratio)

    def architecture(self) -> Architecture:
        """The kept channels; before the choice, those that would be kept if it were made now."""
        kept = self._widths(self.scores()) if self.kept is None else self.kept
        return Architecture(len(kept), kept)

    def deployed(self) -> WideResNet:
        """The compact network of `architecture`, a copy. Its BN statistics are to be measured again."""
        if self.kept is not None:
            return extract(self.network, self.architecture())
        network = copy.deepcopy(self.network)
        kept = self._arrange(network)
        return extract(network, Architecture(len(kept), kept))

    def finish(self) -> None:
        """Make the choice, unless it has been made before."""
        if self.kept is None:
            self.narrow()

    def expected_width(self) -> float:
        """The mean over blocks of the fraction of channels that are kept."""
        whole = self.network.config.widths
        kept = whole if self.kept is None else self.kept
        return sum(k / most for k, most in zip(kept, whole, strict=True)) / len(whole)

    def snapshot(self) -> dict[str, Any]:
        return {**super().snapshot(), "kept": None if self.kept is None else list(self.kept)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.kept = None if state["kept"] is None else tuple(state["kept"])
