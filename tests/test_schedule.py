"""The learning-rate schedule."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmo.recipe import RECIPES
from vmo.schedule import FLOOR, RISE, step_decay, triangular


def test_the_recipe_of_two_hundred_epochs() -> None:
    rates = [step_decay(0.1, epoch / 200) for epoch in range(200)]
    expected = [0.1] * 60 + [0.02] * 60 + [0.004] * 40 + [0.0008] * 40
    assert rates == pytest.approx(expected, rel=1e-12)


@given(lr=st.floats(1e-6, 10), progress=st.lists(st.floats(0, 1), min_size=2, max_size=9).map(sorted))
def test_it_never_rises_and_ends_at_the_last_factor(lr: float, progress: list[float]) -> None:
    rates = [step_decay(lr, p) for p in progress]
    assert all(a >= b for a, b in itertools.pairwise(rates))
    assert step_decay(lr, 0.0) == lr
    assert step_decay(lr, 1.0) == pytest.approx(lr * 0.008)


@pytest.mark.parametrize("progress", [0.3, 0.6, 0.8])
def test_a_milestone_counts_from_the_step_that_reaches_it(progress: float) -> None:
    assert step_decay(1.0, progress) == pytest.approx(0.2 * step_decay(1.0, progress - 1e-9))


def test_the_factor_is_an_option() -> None:
    assert [step_decay(1.0, p, 0.5) for p in (0.0, 0.3, 0.6, 0.8)] == [1.0, 0.5, 0.25, 0.125]


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_outside_the_run(progress: float) -> None:
    for schedule in (step_decay, triangular):
        with pytest.raises(ValueError, match="progress must lie in"):
            schedule(0.1, progress)


@given(lr=st.floats(1e-6, 10), progress=st.floats(0, 1))
def test_the_triangle_has_its_peak_where_it_says(lr: float, progress: float) -> None:
    assert triangular(lr, RISE) == pytest.approx(lr)
    assert triangular(lr, 0.0) == pytest.approx(FLOOR * lr) == triangular(lr, 1.0)
    assert triangular(lr, RISE * progress) == pytest.approx(lr * (FLOOR + (1 - FLOOR) * progress))
    assert triangular(lr, 1 - (1 - RISE) * progress) == pytest.approx(lr * (FLOOR + (1 - FLOOR) * progress))


def test_the_recipe_for_few_epochs_stays_what_its_name_has_meant() -> None:
    """Rows know it by its name alone: other numbers need another name, or another version of the tasks."""
    assert RECIPES == {"wrn": {}, "fast": {"schedule": "triangular", "crop": 0.5}}
    rates = [triangular(0.2, progress) for progress in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.002, 0.101, 0.2, 0.101, 0.002])
