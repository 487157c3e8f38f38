"""All figures of the page, by kind and by what is compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from results import known, words
from results.explorer import contests, gradients, profiles, ranks, training
from results.explorer.numbers import provenance
from results.explorer.places import Place
from results.explorer.traces import Looks

KINDS = ("bias", "work", "error", "accuracy", "curve", "profile")


class Figures:
    """The figures, and what each place has of them.

    Args:
        looks, claims: of every estimator.
    """

    def __init__(self, looks: Looks, claims: Mapping[str, known.Known]) -> None:
        self._looks, self._claims = looks, claims
        self._found: dict[str, dict[str, go.Figure]] = {kind: {} for kind in KINDS}
        self._described: dict[str, dict[str, Any]] = {}

    def add(self, place: Place, here: pd.DataFrame) -> None:
        """Draw those of a place from its rows."""
        groups = contests.groups(here, self._claims)
        for group in groups:
            of_group = here[here["suite"].isin(group.suites)]
            origin = {str(label): provenance(rows) for label, rows in of_group.groupby("estimator")}
            key = f"{place.key}|{group.part}|{group.point}"
            self._found["bias"][key] = gradients.bias_variance(group, self._looks, origin, costly=False)
            self._found["work"][key] = gradients.bias_variance(group, self._looks, origin, costly=True)
            self._found["error"][key] = gradients.error(group)
        if (accuracy := training.accuracy_macs(here, self._looks)) is not None:
            self._found["accuracy"][place.key] = accuracy
        curves = dict(training.curves(here))
        self._found["curve"] |= {f"{place.key}|{metric}": figure for metric, figure in curves.items()}
        self._described[place.key] = {
            "key": place.key,
            "label": place.label,
            "groups": [[group.part, group.point] for group in groups],
            "curves": {metric: words.metric(metric) for metric in curves},
        }

    def add_profiles(self, quantities: Mapping[str, Mapping[str, pd.DataFrame]]) -> None:
        """Draw those over tasks, from what is compared on each."""
        for name in ranks.PROFILED:
            self._found["profile"][name] = profiles.figure(*ranks.profile(quantities, name, self._claims), name)

    def described(self, place: Place) -> dict[str, Any]:
        """What there is of a place."""
        return self._described[place.key]

    def plain(self) -> dict[str, dict[str, Any]]:
        """Everything as JSON has it."""
        return {
            kind: {key: figure.to_plotly_json() for key, figure in found.items()} for kind, found in self._found.items()
        }
