"""Presets: names of complete sets of values. Every suite and task declares its settings' values at each of them."""

from __future__ import annotations

from collections.abc import Sequence

from estimators.options import nearest
from suites import settings, suite, tasks
from suites.settings import Group, Preset

PRESETS = {
    "smoke": "seconds: checks that everything runs",
    "quick": "minutes on two CPU cores: small networks, 8×8 digits",
    "cpu": "hours on two CPU cores: WRN-16-1, CIFAR-10",
    "study": "hours on two CPU cores: WRN-16-1, CIFAR-10 at 16×16, 48 epochs",
    "paper": "needs a GPU: WRN-28-10, CIFAR-10, 200 epochs, as in the VMO paper",
}
DATASETS = {"smoke": "digits", "quick": "digits", "cpu": "cifar10", "study": "cifar10_16", "paper": "cifar10"}
"""The default data set of each preset."""


def groups() -> list[type[Group]]:
    """Every group of settings that a task or a suite declares, each once."""
    declared = [group for name in tasks.available() for group in tasks.factory(name).groups]
    declared += [group for name in suite.available() for group in suite.get(name).groups]
    return list(dict.fromkeys(declared))


def resolve(name: str, assignments: Sequence[str] = ()) -> Preset:
    """A preset with `group.field=value` overrides.

    Raises:
        ValueError: unknown preset, group or field (the message suggests the nearest), wrong type or value out of range.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}{nearest(name, PRESETS)}; there are {', '.join(PRESETS)}")
    return settings.resolve(name, groups(), assignments)
