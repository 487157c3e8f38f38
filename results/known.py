"""What is known of estimators by name: whether they claim to be unbiased, and what they need of f beside its values.

It stands in ``estimators/registry.toml``, and for other libraries in ``results/templates/words.toml``. Of any other
estimator nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from results import registry, words


class Known(NamedTuple):
    """What is known of an estimator; None: nothing.

    Attributes:
        unbiased: its claim.
        needs: some of the section `needs` of the words.
    """

    unbiased: bool | None
    needs: tuple[str, ...] | None


UNKNOWN = Known(None, None)


def of(name: str, options: Mapping[str, Any]) -> Known:
    """What is known of an estimator with these options."""
    entry = registry.estimators().get(name) or words.libraries().get(re.sub(r" [\d.]+$", "", name))
    if entry is None:
        return UNKNOWN
    needs = set(entry["needs"])
    for change in entry.get("options", ()):
        if all(options.get(key) == value for key, value in change.items() if key != "needs"):
            needs = set(change["needs"])
    unbiased = entry.get("unbiased")
    if entry.get("inner"):
        inner = _inner(str(options.get("of", "")))
        if inner.needs is None:
            return UNKNOWN
        unbiased, needs = inner.unbiased, needs | set(inner.needs)
    return Known(unbiased, tuple(sorted(needs)))


def table(frame: pd.DataFrame) -> dict[str, Known]:
    """What is known of every estimator of some rows, by its label."""
    columns = [name for name in frame if name.startswith("option.")]
    cells = frame.drop_duplicates("estimator")
    found = {}
    for label, name, *values in cells[["estimator", "name", *columns]].itertuples(index=False, name=None):
        options = {key.removeprefix("option."): value for key, value in zip(columns, values, strict=True)}
        found[str(label)] = of(str(name), options)
    return found


def _inner(label: str) -> Known:
    """Of the label of an estimator inside another; of its options those that are on or off."""
    name, _, rest = label.partition("[")
    return of(name, {key: value == "true" for key, value in re.findall(r"(\w+)=(true|false)", rest.lower())})
