"""Labels: parsed, canonical, and refused in one line that says what is wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import estimators
from estimators import labels, options
from estimators.labels import Label, parse
from suites import labels as measured

NAMES = estimators.available()


def other(value: Any) -> Any:
    """Another value of the same kind that most options may have."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.9 * value or 0.125
    if isinstance(value, tuple):
        return tuple(other(one) for one in value)
    return {"moving_average": "none", "whole": "own", "all": "one", "softmax": "identity", "sample": "noise",
            "descent": "regression", "rloo": "reinforce", "straight_through": "rloo", None: 0.5}[value]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_part_of_a_label_and_a_default_written_out_is_not(name: str) -> None:
    plain = parse(name)
    usual = options.defaults(estimators.factory(name))
    assert str(plain) == name
    assert dict(plain.options) == usual
    for option, value in usual.items():
        changed = Label(name, tuple(sorted({**usual, option: other(value)}.items())))
        assert changed != plain
        assert parse(str(changed)) == changed
        written = Label(name, tuple(sorted({**usual, option: value}.items())))
        assert parse(f"{name}[{option}={value!r}]") == written == plain


@given(st.data())
def test_a_label_parses_back(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    usual = options.defaults(estimators.factory(name))
    chosen = data.draw(st.sets(st.sampled_from(sorted(usual)))) if usual else set()
    label = Label(name, tuple(sorted((key, other(value) if key in chosen else value) for key, value in usual.items())))
    assert parse(str(label)) == label
    assert measured.parse(f"uniform[of={label}]").of == measured.parse(str(label))


@pytest.mark.parametrize("name", NAMES)
def test_a_number_that_is_none_is_refused_with_the_option(name: str) -> None:
    for option, value in options.defaults(estimators.factory(name)).items():
        if isinstance(value, bool | str) or value is None:
            wrong: list[Any] = [1.5, (1, 2)] if not isinstance(value, str) else [1.5]
        else:
            wrong = [math.nan, math.inf, -math.inf, "abc", True, -1e9] if option != "eta" else [math.nan, "abc"]
            wrong = [one for one in wrong if not (option in ("alpha", "beta") and one == -1e9)]
        for one in wrong if value is not None else ["abc", math.inf]:
            with pytest.raises(ValueError, match=f"^{name}: {option} must be .*, got "):
                estimators.get(name, sizes=(3, 4), **{option: one})


def test_inner_options_nest_to_any_depth() -> None:
    label = parse("averaged[of=averaged[of=rloo[samples=4], samples=2], samples=3]")
    assert [str(one) for one in label.inside] == ["averaged[of='rloo[samples=4]', samples=2]", "rloo[samples=4]"]
    assert label.make((2, 3)).evaluations == 3 * 2 * 4
    assert estimators.get("averaged", sizes=(2, 3), of="rloo[samples=4]").evaluations == 16
    assert parse("averaged[of=rloo[samples=2]]") == parse("averaged[of=rloo]")
    assert parse("partly_exact[sites=[1], of=reinforce[baseline=none]]") == parse(
        "partly_exact[sites=(1,), of='reinforce[baseline=none]']"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("relax[temperature=abc]", "relax: temperature must be a number > 0, got 'abc'"),
        ("rloo[samples=2, samples=3]", "option 'samples' of 'rloo[samples=2, samples=3]' is given twice"),
        ("rloo[samples=2", "lacks its closing bracket"),
        ("averaged[of=rloo[samples=2]", "lacks a closing"),
        ("rloo[samples]", "must be written as name=value"),
        ("rloo[sample=2]", "did you mean 'samples'?"),
        ("rlo", "did you mean 'rloo'?"),
        ("concrete[temperature=(1, 2, 3)]", "must be a number or a pair of numbers"),
        ("concrete[temperature=(1, 2, 'square')]", "and 'linear' or 'entropy' > 0, got (1, 2, 'square')"),
        ("concrete[temperature=(1, -2, 'linear')]", "> 0, got (1, -2, 'linear')"),
        ("averaged[of=rloo[samples=1]]", "rloo: samples must be a whole number ≥ 2, got 1"),
        ("averaged[of=nonsense]", "no estimator 'nonsense'"),
        ("unordered[samples=100]", "samples must be a whole number ≥ 2 and ≤"),
        ("plain[samples=2]", "plain has no options"),
        ("uniform[of=plain]", "must be written as uniform[of=ESTIMATOR]"),
    ],
)
def test_what_is_no_label_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        measured.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_version_is_that_of_the_estimator_and_what_is_inside_is_named() -> None:
    assert parse("sweep").version == 2
    assert labels.parse("averaged[of=sweep]").version == 1
    assert measured.parse("uniform[of=averaged[of=sweep]]").inside == ("sweep",)
