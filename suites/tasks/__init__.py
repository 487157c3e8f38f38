"""The registry of tasks. A task is a distribution and an objective, with a version; each is one file."""

from __future__ import annotations

from importlib import import_module

from estimators.options import nearest
from suites.tasks.base import Task

_REGISTRY: dict[str, str | type[Task]] = {
    "toy": "suites.tasks.toy:Toy",
    "quadratic": "suites.tasks.quadratic:QuadraticTask",
    "multilinear": "suites.tasks.multilinear:MultilinearTask",
    "polynomial": "suites.tasks.polynomial:PolynomialTask",
    "vae": "suites.tasks.vae:VaeTask",
    "bottleneck": "suites.tasks.bottleneck:BottleneckTask",
    "experts": "suites.tasks.experts:ExpertsTask",
    "halves": "suites.tasks.halves:HalvesTask",
    "spelling": "suites.tasks.spelling:SpellingTask",
    "hierarchy": "suites.tasks.hierarchy:HierarchyTask",
    "depth": "suites.tasks.network:Depth",
    "width": "suites.tasks.network:Width",
    "joint": "suites.tasks.network:Joint",
}


def available() -> tuple[str, ...]:
    """The names of all tasks, in their order of registration."""
    return tuple(_REGISTRY)


def register(name: str, factory: str | type[Task]) -> None:
    """Add a task: a `Task` subclass, or "module:class". Raises ValueError if the name is taken."""
    if name in _REGISTRY:
        raise ValueError(f"there is a task {name!r} already")
    _REGISTRY[name] = factory


def factory(name: str) -> type[Task]:
    """The class of a task. Raises ValueError for an unknown name; the message suggests the nearest."""
    if name not in _REGISTRY:
        raise ValueError(f"no task {name!r}{nearest(name, _REGISTRY)}; there are {', '.join(_REGISTRY)}")
    found = _REGISTRY[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)
    return found
