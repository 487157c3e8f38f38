"""Families of estimators, the rule by which a figure names a few of many, and colours that say the family."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest

from results import families, palette

KNOWN = [name for names in families.FAMILIES.values() for name in names]
TOGETHER = ["exact", "reinforce", "rloo", "straight_through", "concrete", "rebar", "relax", "plain"]
# Labels that stand in one figure of the reference.
VARIANTS = (
    ["concrete", *(f"concrete[temperature={t}]" for t in ("1.0", "0.3", "0.1", "0.03"))],
    ["sweep", "sweep[samples=3]", "sweep[slopes=False]", "sweep[rate=0.5, slopes=False]"],
    ["rloo", "rloo[parts='first']", "rloo[parts='own']"],
    ["rloo", "rloo[samples=8]", "grpo"],
    ["rebar", "rebar[coupled=True]", "rebar[coupled=True, tuning='regression']"],
)
# What is left of linear RGB without one kind of cones (Machado, Oliveira, Fernandes 2009, severity 1).
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def colour(label):
    return palette.colour(label, label.partition("[")[0])


def apart(colours):
    points = [palette.oklab(one) for one in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(points, 2))


def seen(hexadecimal, kind):
    """The colour as someone without one kind of cones sees it."""
    srgb = np.array([int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.array(BLIND[kind]) @ np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = linear.clip(0, 1)
    back = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * one):02x}" for one in back.clip(0, 1))


def test_of_many_the_best_of_each_family_are_named():
    names = {f"{name}[samples={i}]": name for name in ("rloo", "relax", "sweep", "someone_elses") for i in range(5)}
    names |= {"rloo": "rloo", "concrete": "concrete", "plain": "plain", "reinmax": "reinmax"}
    measure = pd.Series({label: float(i) for i, label in enumerate(names)})
    kept = families.chosen(names, measure)
    assert len(kept) == families.MOST == 8
    assert {"plain", "rloo", "concrete"} <= set(kept), "those that the others are compared with"
    assert {"relax[samples=0]", "sweep[samples=0]", "someone_elses[samples=0]"} <= set(kept)
    assert [palette.Look(label, names[label]).family for label in kept] == sorted(
        (palette.Look(label, names[label]).family for label in kept), key=list(families.FAMILIES).index
    )
    others = [label for label in families.chosen(names, -measure) if label.startswith("someone")]
    assert others[0] == "someone_elses[samples=4]", "the best is the least, and first"
    unmeasured = families.chosen(names, measure.drop("sweep[samples=0]"))
    assert "sweep[samples=1]" in unmeasured and "sweep[samples=0]" not in unmeasured
    assert set(families.chosen(dict(list(names.items())[:4]), measure)) == set(list(names)[:4]), "all of a few"


def test_the_rule_is_said_where_something_is_left_out():
    there = ["plain", "rloo", "relax", "sweep"]
    assert families.rule("named", "variance", there, there) == ""
    said = families.rule("named", "variance", there[:3], there, grey=True)
    assert said == "named: plain, rloo and the best of each family by variance; grey: 1 more"
    assert "1 more in the tables" in families.rule("shown", "memory", there[:3], there)


def test_the_mean_of_another_is_of_its_family():
    assert families.family("averaged", "averaged") == families.family("concrete", "concrete")
    assert families.family("averaged[of='rloo[samples=4]']", "averaged") == "score function"
    assert families.family("someone_elses", "someone_elses") == "others"


def test_labels_are_written_in_words():
    assert palette.text("rloo") == "rloo"
    assert palette.text("sweep[rate=0.5, slopes=False]") == "sweep, rate 0.5, no slopes"
    assert palette.text("averaged[of='rloo[samples=4, parts=own]']") == "averaged, of rloo[samples=4, parts=own]"
    assert palette.text("concrete[temperature=(1.0, 0.1)]") == "concrete, temperature (1.0, 0.1)"


def test_colours_are_distinct_and_print():
    """In OKLab a step of 0.02 is just visible; paper is 1, and 0.78 is about where yellow starts to fade on it."""
    assert apart(map(colour, KNOWN)) > 0.045
    assert apart(map(colour, TOGETHER)) > 0.05
    variants = [f"{name}[a={i}]" for name in KNOWN for i in range(4)]
    assert max(palette.oklab(colour(name))[0] for name in [*KNOWN, *variants]) < 0.82
    inks = [palette.Look(name, name).ink for name in KNOWN]
    assert max(palette.oklab(ink)[0] for ink in inks) < 0.6, "letters are darker than markers"


@pytest.mark.parametrize("kind", BLIND)
def test_families_stay_apart_without_one_kind_of_cones(kind):
    coloured = [name for name in families.FAMILIES if name not in ("baselines", "others")]
    assert apart(seen(palette.family_colour(name), kind) for name in coloured) > 0.06


def test_a_family_has_a_hue_and_a_marker_of_its_own():
    markers = {palette.Look(name, name).marker for name in KNOWN}
    assert len(markers) == len([family for family, names in families.FAMILIES.items() if names])
    for names in families.FAMILIES.values():
        hues = [np.arctan2(*palette.oklab(colour(name))[:0:-1]) for name in names if name not in ("plain", "zero")]
        if names and names[0] != "plain":
            assert max(hues) - min(hues) < 0.1
            assert len({palette.Look(name, name).marker for name in names}) == 1


def test_a_variant_keeps_the_hue_and_shows():
    others = [f"{name}[a={i}]" for name in ("relax", "concrete", "gumbel_rao") for i in range(20)]
    for label in ("relax[temperature=0.5]", "concrete[temperature=0.1]", *others):
        own, other = (palette.oklab(colour(name)) for name in (label.partition("[")[0], label))
        hues = np.arctan2(own[2], own[1]), np.arctan2(other[2], other[1])
        assert abs(hues[0] - hues[1]) < 0.1
        assert abs(own[0] - other[0]) > 0.07
    for together in VARIANTS:
        assert apart(map(colour, together)) > 0.04


def test_a_new_name_has_a_colour_of_its_own():
    assert colour("someone_elses") == colour("someone_elses") != colour("another")
    assert re.fullmatch("#[0-9a-f]{6}", colour("someone_elses"))
