"""Names, options and refusals: `get`, `available`, `register`, and the README's table."""

from __future__ import annotations

import math
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import estimators
from estimators.exact import Exact
from estimators.reinforce import Reinforce


def _readme() -> dict[str, list[str]]:
    """The further cells of each row of the README's table of estimators."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    table = text.partition("## Estimators")[2].partition("\n## ")[0]
    rows = (line.strip("| ").split(" | ") for line in table.splitlines() if re.match(r"\|\s*`", line))
    return {first.strip("`"): rest for first, *rest in rows}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry as it was, after the test."""
    monkeypatch.setattr(estimators, "_REGISTRY", dict(estimators._REGISTRY))


def refused(name: str, *, sizes: tuple[int, ...] = (3, 2), **options: Any) -> str:
    """The one line with which `get` refuses."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 — the callers look at the message
        estimators.get(name, sizes=sizes, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert 10 < len(message) < 500
    return message


def test_available_names_are_sorted_identifiers() -> None:
    names = estimators.available()
    assert {"concrete", "exact", "rebar", "reinforce", "relax", "rloo", "straight_through"} <= set(names)
    assert list(names) == sorted(set(names))
    assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize("name", estimators.available())
def test_an_estimator_says_what_it_is(name: str) -> None:
    """A class of its own, with a docstring that gives the cost, and claims of the right types."""
    make = estimators.factory(name)
    assert isinstance(make, type)
    assert issubclass(make, estimators.Estimator)
    module = __import__(make.__module__, fromlist=["_"])
    assert "Cost" in (module.__doc__ or "")
    assert make.__doc__
    made = estimators.get(name, sizes=(2, 2))
    assert isinstance(made.unbiased, bool)
    assert isinstance(made.relaxed, bool)
    assert isinstance(made.evaluations, int)
    assert made.evaluations >= 1
    assert isinstance(made.version, int)
    assert made.training


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("reenforce", "reinforce"), ("rlo", "rloo"), ("concret", "concrete"), ("Rebar", "rebar"), ("relx", "relax")],
)
def test_unknown_names_suggest_the_nearest(wrong: str, meant: str) -> None:
    message = refused(wrong)
    assert f"did you mean {meant!r}" in message
    assert repr(wrong) in message
    for name in estimators.available():
        assert name in message


def test_names_like_no_other_suggest_nothing() -> None:
    assert "did you mean" not in refused("qqqqqq")


def test_unknown_options_suggest_the_nearest() -> None:
    message = refused("rloo", sample=3)
    assert "rloo" in message and "'sample'" in message and "did you mean 'samples'" in message
    assert "its options are temperature" in refused("concrete", hidden=1)
    with pytest.raises(ValueError, match="did you mean 'decay'"):
        estimators.get("reinforce", sizes=(2,), baseline="none", decai=0.5)
    estimators.get("reinforce", sizes=(2,), baseline="none", decay=0.5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("exact", {"limit": 0}),
        ("exact", {"chunk": 0}),
        ("exact", {"limit": 5}),
        ("exact", {"limit": "many"}),
        ("reinforce", {"baseline": "median"}),
        ("reinforce", {"decay": 1.0}),
        ("reinforce", {"decay": -0.1}),
        ("reinforce", {"decay": math.nan}),
        ("reinforce", {"decay": None}),
        ("rloo", {"samples": 1}),
        ("rloo", {"samples": "two"}),
        ("rloo", {"samples": 2.5}),
        ("straight_through", {"through": "softmaxx"}),
        ("straight_through", {"through": None}),
        ("concrete", {"temperature": 0.0}),
        ("concrete", {"temperature": (0.1,)}),
        ("concrete", {"temperature": "cold"}),
        ("concrete", {"temperature": (0.1, 0.0)}),
        ("rebar", {"temperature": -1.0}),
        ("rebar", {"temperature": math.nan}),
        ("rebar", {"temperature": (1.0, 0.1)}),
        ("rebar", {"eta": math.nan}),
        ("rebar", {"eta": "one"}),
        ("relax", {"temperature": 0}),
        ("relax", {"hidden": 0}),
        ("relax", {"hidden": 2.5}),
    ],
)
def test_options_that_cannot_work_are_refused(name: str, options: dict[str, Any]) -> None:
    message = refused(name, **options)
    assert next(iter(options)) in message


@pytest.mark.parametrize(
    ("sizes", "count"), [((100, 100), "10,000"), ((640,) * 12, "1e34"), ((2,) * 40, "1e12"), ((4097,), "4,097")]
)
def test_exact_says_why_it_refuses_a_large_space(sizes: tuple[int, ...], count: str) -> None:
    message = refused("exact", sizes=sizes)
    assert count in message and "limit=4,096" in message


def test_exact_takes_a_space_at_its_limit() -> None:
    assert Exact((64, 64)).evaluations == 4096


@pytest.mark.usefixtures("registry")
def test_a_registered_estimator_is_there() -> None:
    class Mine(Reinforce):
        """Mine."""

    estimators.register("mine", Mine)
    assert "mine" in estimators.available()
    assert isinstance(estimators.get("mine", sizes=(2,), decay=0.5), Mine)
    estimators.register("by_name", "estimators.reinforce:Reinforce")
    assert type(estimators.get("by_name", sizes=(2,))) is Reinforce
    assert "mine" in refused("mines")


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", ["rloo", "not a name", "", "1st", "a-b"])
def test_names_that_are_taken_or_none_are_refused(name: str) -> None:
    before = estimators.available()
    with pytest.raises(ValueError, match=r"already|identifier"):
        estimators.register(name, Reinforce)
    assert estimators.available() == before
    estimators.register("twice", Reinforce)
    with pytest.raises(ValueError, match="'twice' already"):
        estimators.register("twice", Reinforce)


def test_the_registry_is_clean_after_a_test() -> None:
    assert not {"mine", "by_name", "twice"} & set(estimators.available())


def test_entry_points_are_estimators_but_do_not_displace_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "estimators.registry"
    points = [
        metadata.EntryPoint("outside", "estimators.rloo:Rloo", group),
        metadata.EntryPoint("exact", "estimators.rloo:Rloo", group),
    ]
    monkeypatch.setattr(estimators, "_outside", estimators._outside.__wrapped__)
    monkeypatch.setattr(estimators, "entry_points", lambda group: points)
    assert "outside" in estimators.available()
    assert estimators.get("outside", sizes=(2,)).evaluations == 2
    assert isinstance(estimators.get("exact", sizes=(2,)), Exact)
    with pytest.raises(ValueError, match="'outside' already"):
        estimators.register("outside", Reinforce)


def test_the_readme_has_a_row_for_every_estimator() -> None:
    """Of this package; each name in backticks in the first cell of a table row."""
    cells = set(_readme())
    ours = {n for n in estimators.available() if estimators.factory(n).__module__.startswith("estimators.")}
    assert ours <= cells, f"no row for {sorted(ours - cells)}"


@pytest.mark.parametrize("name", sorted(_readme()))
def test_the_readme_says_of_an_estimator_what_it_is(name: str) -> None:
    """Whether it is unbiased, and whether it asks for ∂f/∂sample."""
    unbiased, slopes, *_ = _readme()[name]
    made = estimators.get(name, sizes=(2, 3))
    logits = [torch.zeros(2), torch.zeros(3)]
    made.estimate(lambda z: (z[0][..., 0] - z[1][..., 1]) ** 2, logits, made.draw(logits))
    if unbiased in ("yes", "no"):
        assert made.unbiased == (unbiased == "yes")
        assert bool(made.blind) == (slopes == "yes")
    else:
        assert unbiased == "as `of`" or not made.unbiased
