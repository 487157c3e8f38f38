"""Families of estimators, and the one rule by which a figure chooses the few that it names.

An estimator that is in none of the lists, as one of another package, is of the family "others".
"""

import re
from collections.abc import Iterable, Mapping

import pandas as pd

from results import registry

_BASELINES = {"baselines": ["plain", "zero", "random", "scratch", "uniform"]}


def _families() -> dict[str, tuple[str, ...]]:
    found = {name: list(members) for name, members in _BASELINES.items()}
    for name, entry in registry.estimators().items():
        found.setdefault(entry["family"], []).append(name)
    return {family: tuple(members) for family, members in (found | {"others": []}).items()}


FAMILIES = _families()
"""The names of each family, in the order of figures; within one from its darkest tint to its lightest."""
MOST = 8
"""Estimators that a panel names."""
ALWAYS = ("plain", "rloo", "concrete")
"""Those that are in every figure which has them, to compare the others with."""


def family(label: str, name: str) -> str:
    """The family of an estimator; of the mean of another, that of the other."""
    inner = re.search(r"\bof='?(\w+)", label) if name == "averaged" else None
    looked_for = inner[1] if inner else name
    return next((title for title, names in FAMILIES.items() if looked_for in names), "others")


def chosen(names: Mapping[str, str], measure: pd.Series, most: int = MOST) -> list[str]:
    """The labels that a figure names: `ALWAYS` first, then the best of each family, then the second of each, and so on.

    Args:
        names: the name without options of every label.
        measure: by label, smaller is better; a label without one comes last in its family.
        most: how many to choose.

    Returns:
        The chosen labels in the order of the families, the best of each first.
    """
    rows = pd.DataFrame({"name": pd.Series(names)})
    rows["family"] = [family(label, name) for label, name in names.items()]
    rows["measure"] = measure.groupby(level=0).mean().reindex(rows.index).fillna(float("inf"))
    rows["place"] = list(range(len(rows)))
    rows = rows.sort_values(["measure", "place"])
    rows["rank"] = rows.groupby("family").cumcount()
    rows["first"] = ~rows.index.isin(ALWAYS)
    kept = rows.sort_values(["first", "rank", "measure", "place"]).head(most)
    order = {title: i for i, title in enumerate(FAMILIES)}
    kept = kept.assign(family=kept["family"].map(order))
    return [str(label) for label in kept.sort_values(["family", "measure", "place"]).index]


def rule(where: str, by: str, shown: Iterable[str], there: Iterable[str], *, grey: bool = False) -> str:
    """The rule in words, for the note of a figure; empty where everything is shown.

    Args:
        where: what is shown of what, as "named in each family".
        by: what the best of a family is best in.
        shown: labels that were chosen.
        there: labels that there are.
        grey: whether the others stand in the figure, without their names.
    """
    shown, there = set(shown), set(there)
    left = len(there - shown)
    if not left:
        return ""
    always = ", ".join(name for name in ALWAYS if name in shown)
    best = f"{always + ' and ' if always else ''}the best of each family by {by}"
    others = f"grey: {left} more" if grey else f"{left} more in the tables"
    return f"{where}: {best}; {others}"
