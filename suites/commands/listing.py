"""Lists estimators, baselines, tasks, suites, presets and data sets, without importing torch."""

from __future__ import annotations

from collections import Counter
from typing import Any

from suites.commands import source, tables

BASELINES = ("plain", "random", "uniform[of=NAME]", "scratch[of=NAME]")
OWN_DATA = "NAME.npz"
KINDS = ("all", "estimators", "baselines", "tasks", "suites", "presets", "datasets", "settings")


def names(kind: str) -> list[str]:
    """The names of a kind, one of `KINDS` or "parts"."""
    found: dict[str, Any] = {
        "estimators": source.estimators,
        "baselines": _baselines,
        "tasks": source.tasks,
        "suites": source.suites,
        "presets": source.presets,
        "datasets": lambda: (*source.datasets(), OWN_DATA),
        "parts": source.parts,
    }
    return list(found[kind]())


def _baselines() -> list[str]:
    return [*BASELINES, *source.rivals()]


def listed(kind: str) -> dict[str, Any]:
    """All items of a kind, or of all kinds, as JSON."""
    wanted = KINDS[1:-1] if kind == "all" else (kind,)
    return {one: _LISTED[one]() for one in wanted}


def show(kind: str) -> None:
    """Print the items of a kind, or of all kinds."""
    found = listed(kind)
    for one, items in found.items():
        if one == "estimators":
            tables.say("estimators, with the defaults of their options:\n")
            for item in items:
                options = ", ".join(f"{key}={value}" for key, value in item["options"].items())
                tables.say_folded(item["name"] + (f"[{options}]" if options else ""))
                tables.say_folded(item["summary"], indent=" " * 8)
        elif isinstance(items[0], dict):
            lines = [[item["name"], item["summary"]] for item in items]
            tables.show("", [_TITLES[one], "what it is"], lines, keys=2)
        else:
            tables.say_folded(f"{_TITLES[one]}: {', '.join(items)}")


_TITLES = {
    "baselines": "baselines",
    "tasks": "task",
    "suites": "suite",
    "presets": "preset",
    "datasets": "data sets",
}


def _estimators() -> list[dict[str, Any]]:
    found = []
    for name, place in source.estimators().items():
        of = source.describe(place)
        found.append({"name": name, "options": dict(of.options), "summary": of.summary})
    return found


def _tasks() -> list[dict[str, Any]]:
    places = source.tasks()
    modules = Counter(str(place).partition(":")[0] for place in places.values())
    found = []
    for name, place in places.items():
        of = source.describe(place)
        alone = modules[str(place).partition(":")[0]] == 1  # otherwise the module's first line describes several tasks
        found.append({"name": name, "summary": of.summary if alone else of.own})
    return found


def _suites() -> list[dict[str, Any]]:
    found = []
    for name, place in source.suites().items():
        constants = source.describe(place).constants
        by_name = bool(constants.get("by_name", False))
        title = constants.get("title", "") + (" (runs only if named)" if by_name else "")
        found.append({"name": name, "summary": title, "by_name": by_name})
    return found


_LISTED: dict[str, Any] = {
    "estimators": _estimators,
    "baselines": _baselines,
    "tasks": _tasks,
    "suites": _suites,
    "presets": lambda: [{"name": name, "summary": what} for name, what in source.presets().items()],
    "datasets": lambda: names("datasets"),
}
