"""Estimators of the gradient of an expectation over categoricals, behind one protocol.

Examples:
    >>> import estimators
    >>> estimator = estimators.get("rloo", sizes=(3, 4))
    >>> loss = estimator.backward(objective, logits, generator=generator)  # doctest: +SKIP
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from estimators.advice import Advice, pick
from estimators.base import Estimate, Estimator
from estimators.distribution import OneHot
from estimators.dropin import sample, surrogate
from estimators.objective import Objective
from estimators.options import nearest, resolve

__all__ = [
    "Advice",
    "Estimate",
    "Estimator",
    "Objective",
    "OneHot",
    "available",
    "get",
    "pick",
    "register",
    "sample",
    "surrogate",
]

# name -> "module:class"; imported when asked for
_REGISTRY: dict[str, str | Callable[..., Estimator]] = {
    name: entry["class"]
    for name, entry in tomllib.loads(Path(__file__).with_name("registry.toml").read_text(encoding="utf-8")).items()
}


def register(name: str, factory: str | Callable[..., Estimator]) -> None:
    """Add an estimator under a name of its own.

    Worker processes import the module that defines the class. So define the class at the top level of an importable
    module, not in the script that is run and not inside a function. Register it in the same module.

    Args:
        name: a Python identifier that is not taken.
        factory: an `Estimator` subclass, or "module:class". A package may declare an entry point in the group
            `estimators.registry` instead.

    Raises:
        ValueError: the name is taken or is not an identifier.
    """
    if not name.isidentifier():
        raise ValueError(f"an estimator's name must be an identifier, got {name!r}")
    if isinstance(factory, str) and not all(factory.partition(":")):
        raise ValueError(f'the factory of {name!r} must be a class or "module:class", got {factory!r}')
    if name in _registry():
        raise ValueError(f"there is an estimator {name!r} already")
    _REGISTRY[name] = factory


def available() -> tuple[str, ...]:
    """The names of all registered estimators, sorted."""
    return tuple(sorted(_registry()))


def factory(name: str) -> Callable[..., Estimator]:
    """The class registered under a name.

    Raises:
        ValueError: no such name; the message suggests the nearest one.
    """
    registry = _registry()
    if name not in registry:
        raise ValueError(f"no estimator {name!r}{nearest(name, registry)}; there are {', '.join(available())}")
    found = registry[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)
    return found


def get(name: str, /, sizes: Sequence[int], **options: Any) -> Estimator:
    """An estimator for categoricals of these sizes.

    Args:
        name: one of `available()`.
        sizes: K_l, the number of categories of each site.
        **options: the options of this estimator, see its class.

    Raises:
        ValueError: an unknown name or option, or sizes and options that do not work together.
    """
    make = factory(name)
    return make(sizes, **resolve(name, make, options))


def _registry() -> dict[str, str | Callable[..., Estimator]]:
    return {**_outside(), **_REGISTRY}


@functools.cache  # reading the entry points takes longer than most estimates
def _outside() -> dict[str, str]:
    """The estimators that installed packages declare."""
    return {point.name: point.value for point in entry_points(group="estimators.registry")}
