"""Labels of what is measured: estimators with their options (see `estimators.labels`), baselines, and rivals of VMO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from estimators import Estimator, labels, options
from suites import rivals
from suites.rivals import Rival

PLAIN = "plain"
"""The label of plain training: the same network without a distribution over architectures."""
RANDOM = "random"
"""The label of a control: q stays uniform, weights train on its samples, and one sample is chosen at the end."""
FIXED = ("uniform", "scratch")
"""Labels of controls for a network learned by the estimator that the option `of` names. See `suites.accuracy`."""
BASELINES = (PLAIN, RANDOM, *FIXED)


@dataclass(frozen=True)
class Label:
    """An estimator or a rival with all of its options, or a baseline. Equal labels give equal cells."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        if (of := self.of) is not None:
            return f"{self.name}[of={str(of)!r}]"
        if self.name in rivals.available():
            usual = options.defaults(rivals.get(self.name))
            own = [f"{key}={value!r}" for key, value in self.options if usual[key] != value]
            return f"{self.name}[{', '.join(own)}]" if own else self.name
        return self.name if self.name in BASELINES else str(self._estimator)

    @property
    def is_estimator(self) -> bool:
        """Whether it is an estimator; otherwise it is a baseline or a rival."""
        return self.name not in (*BASELINES, *rivals.available())

    @property
    def rival(self) -> Rival | None:
        """The rival with its options, or None."""
        return rivals.get(self.name)(**dict(self.options)) if self.name in rivals.available() else None

    @property
    def _estimator(self) -> labels.Label:
        return labels.Label(self.name, self.options)

    @property
    def of(self) -> Label | None:
        """For a control: the label of the estimator or rival whose network it is compared with. Otherwise None."""
        return parse(dict(self.options)["of"]) if self.name in FIXED else None

    @property
    def version(self) -> int:
        """The version of the estimator or rival; for a control, that of its `of`."""
        if (of := self.of) is not None:
            return of.version
        if (rival := self.rival) is not None:
            return rival.version
        return 1 if self.name in BASELINES else self._estimator.version

    @property
    def inside(self) -> tuple[str, ...]:
        """The labels of the estimators that it uses inside."""
        of = self.of if self.of is not None else self
        if (rival := of.rival) is not None:
            return rival.uses
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
    if name in rivals.available():
        return Label(name, tuple(sorted(options.resolve(name, rivals.get(name), given).items())))
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
