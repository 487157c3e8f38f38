"""Labels of what is measured: estimators with their options (see `estimators.labels`), and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from estimators import Estimator, labels

PLAIN = "plain"
"""The label of plain training: the same network without a distribution over architectures."""
RANDOM = "random"
"""The label of a control: q stays uniform, weights train on its samples, and one sample is chosen at the end."""
FIXED = ("uniform", "scratch")
"""Labels of controls for a network learned by the estimator that the option `of` names. See `suites.accuracy`."""
BASELINES = (PLAIN, RANDOM, *FIXED)


@dataclass(frozen=True)
class Label:
    """An estimator with all of its options, or a baseline. Equal labels give equal cells."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        if (of := self.of) is not None:
            return f"{self.name}[of={str(of)!r}]"
        return self.name if self.name in BASELINES else str(self._estimator)

    @property
    def _estimator(self) -> labels.Label:
        return labels.Label(self.name, self.options)

    @property
    def of(self) -> Label | None:
        """For a control: the label of the estimator whose network it is compared with. Otherwise None."""
        return parse(dict(self.options)["of"]) if self.name in FIXED else None

    @property
    def version(self) -> int:
        """The estimator's version; for a control, that of its `of`."""
        if (of := self.of) is not None:
            return of.version
        return 1 if self.name in BASELINES else self._estimator.version

    @property
    def inside(self) -> tuple[str, ...]:
        """The labels of the estimators nested inside it."""
        of = self.of if self.of is not None else self
        return () if of.name in BASELINES else tuple(map(str, of._estimator.inside))

    def make(self, sizes: Sequence[int]) -> Estimator:
        """The estimator. Raises ValueError if it cannot work on these sizes."""
        return self._estimator.make(sizes)

    def with_(self, **options: Any) -> Label:
        """The same estimator with other options."""
        return Label(self.name, tuple(sorted({**dict(self.options), **options}.items())))


def parse(text: str) -> Label:
    """Read a label from text.

    Raises:
        ValueError: see `estimators.labels.parse`.
    """
    name, given = labels.split(text)
    if name in (PLAIN, RANDOM):
        if given:
            raise ValueError(f"{name} has no options, got {text!r}")
        return Label(name)
    if name in FIXED:
        of = given.get("of")
        if set(given) != {"of"} or not isinstance(of, str) or (learned := parse(of)).name in BASELINES:
            raise ValueError(
                f"{name} is a control for a learned network and must be written as {name}[of=ESTIMATOR], got {text!r}"
            )
        return Label(name, (("of", str(learned)),))
    found = labels.parse(text)
    return Label(found.name, found.options)
