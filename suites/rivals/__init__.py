"""Rivals of VMO on the width task: other ways to a narrower network, under the same budget of MACs.

A rival is one file: a frozen dataclass of its options that makes the trainer of a run. It is named and written like an
estimator, as `pruned[at=0.25]`. See `suites.rivals.base`.
"""

from __future__ import annotations

from importlib import import_module

from suites.rivals.base import Rival

_REGISTRY: dict[str, str | type[Rival]] = {
    "l0": "suites.rivals.l0:L0",
    "l0_arm": "suites.rivals.l0_arm:L0Arm",
    "pruned": "suites.rivals.pruned:Pruned",
    "slimmable": "suites.rivals.slimmable:Slimmable",
}


def available() -> tuple[str, ...]:
    """The names of all rivals."""
    return tuple(_REGISTRY)


def get(name: str) -> type[Rival]:
    """A rival by name. Raises KeyError if there is none."""
    found = _REGISTRY[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)
    return found
