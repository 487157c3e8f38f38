"""A weight-sharing network and a search: single path one-shot (Guo et al. 2019, arXiv:1904.00420) over widths.

Every step trains one architecture: for every block a width is drawn uniformly, and its first channels train. This is
the training of the baseline `random`. OFA (arXiv:1908.09791) and AutoSlim (arXiv:1903.11728) train more networks per
step, the full one among them; the single path does not.

Then the search: N architectures are drawn that meet the target. Each is cut out, its BN statistics are measured on
training images, and its accuracy is measured on held-back training images, which have trained no weights. The best one
is the network of the run, as it is. No test image is used.

The run costs (1 − h) E[r] plain runs, and the search Σ r_n (b + v) / (3 E B) more: r are the MACs of an architecture
as a fraction of the full network's, under the uniform distribution; h is the held-back fraction. b and v are the images
that measure the BN statistics and the accuracy. A plain run has E epochs of B images, and a training step costs three
times a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any

import estimators
from estimators import Estimator
from estimators.options import Count, Range
from suites.rivals.base import Rival, Start
from vmo.data import Split, split_off
from vmo.evaluate import evaluate, recalibrate
from vmo.extract import extract
from vmo.space import ArchitectureDistribution
from vmo.train import Trainer

MINIBATCHES, IMAGES = 10, 256  # that measure the BN statistics of a candidate


def hard_samples(sizes: Sequence[int]) -> Estimator:
    """The cheapest estimator with hard samples; weights train on one sample per step."""
    return estimators.get("reinforce", sizes=sizes, baseline="none")


class SearchedRun(Trainer):
    """A run whose network is searched for at the end.

    Args:
        start: the start of the run; its training images do not include `held`.
        held: the images of the search.
        candidates: N.

    Attributes:
        found: the category of each block's width; None before the search.
    """

    def __init__(self, start: Start, held: Split, candidates: int) -> None:
        self.held, self.candidates, self.target = held, candidates, start.target
        self.found: tuple[int, ...] | None = None
        with start.dataset.train.images.device:
            q, estimator = ArchitectureDistribution(start.space), hard_samples(start.space.sizes)
        super().__init__(
            start.network, start.dataset, start.recipe,
            distribution=q, estimator=estimator, penalty=start.target, seed=start.seed,
        )  # fmt: skip

    def choice(self) -> tuple[int, ...]:
        """The architecture that was found; before the search, one sample, as for `random`."""
        return super().choice() if self.found is None else self.found

    def finish(self) -> None:
        """The search. Of equal accuracies the smaller loss is better."""
        best: tuple[float, float] | None = None
        for index in dict.fromkeys(islice(self.samples(), self.candidates)):
            loss, accuracy = self._measured(index)
            if best is None or (accuracy, -loss) > best:
                best, self.found = (accuracy, -loss), index

    def _measured(self, index: tuple[int, ...]) -> tuple[float, float]:
        assert self.distribution is not None
        compact = extract(self.network, self.distribution.space.architecture(index))
        recalibrate(compact, self.dataset, batch_size=IMAGES, limit=MINIBATCHES)
        return evaluate(compact, self.held, self.dataset)

    def cost(self) -> float:
        assert self.distribution is not None
        space, size = self.distribution.space, self.dataset.shape[-1]
        rest, fixed, slope = self.network.config.macs(size)
        uniform = sum(s * (k + space.step) / 2 for s, k in zip(slope, space.hidden, strict=True))
        expected = (rest + sum(fixed) + uniform) / self.network.config.total_macs(size)
        images, all_images = len(self.dataset.train), len(self.dataset.train) + len(self.held)
        searched = self.candidates * (min(images, MINIBATCHES * IMAGES) + len(self.held)) / 3
        return (expected * images + self.target.ratio * searched / self.recipe.epochs) / all_images

    def snapshot(self) -> dict[str, Any]:
        return {**super().snapshot(), "found": None if self.found is None else list(self.found)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.found = None if state["found"] is None else tuple(state["found"])


@dataclass(frozen=True, kw_only=True)
class Slimmable(Rival):
    """A weight-sharing network and a search.

    Attributes:
        held: the fraction of the training images that only the search uses.
        candidates: N, the architectures that are compared.
    """

    held: Annotated[float, Range(gt=0, lt=1)] = 0.1
    candidates: Count = 100

    def trainer(self, start: Start) -> SearchedRun:
        rest, held = split_off(start.dataset, self.held)
        if len(rest.train) < (batch := start.recipe.batch_size):
            raise ValueError(f"slimmable: held={self.held:g} leaves {len(rest.train)} images, no minibatch of {batch}")
        return SearchedRun(
            replace(start, dataset=rest, recipe=replace(start.recipe, learn=False)), held, self.candidates
        )
