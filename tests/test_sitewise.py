"""Stacks of sites: the same tensors, in the same places, whatever the sizes and where they come from."""

import oracles
import pytest
import strategies
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import Joint, logits_like, run, same, seeded

import estimators
from estimators.noise import gumbel, gumbel_argmax, uniform
from estimators.sitewise import Stacked, layout_of, sitewise, stacked, stacks


@given(data=st.data())
def test_sites_come_back_from_their_stacks(data: st.DataObject) -> None:
    sizes = data.draw(strategies.sizes())
    logits = data.draw(strategies.logits(sizes, data.draw(strategies.rows())))
    whole = stacked(logits)
    assert len(whole) == len(sizes)
    same(tuple(whole), tuple(logits), "another site")
    assert sorted(i for at in whole.layout for i in at) == list(range(len(sizes)))
    assert {stack.shape[-1] for stack in whole.stacks} == set(sizes)
    assert stacked(whole) is whole
    assert stacks(whole, whole.layout) is whole.stacks


@given(data=st.data())
def test_an_operation_is_that_of_every_site(data: st.DataObject) -> None:
    """With a leading dimension that one argument lacks, and one that loses the dimension of K."""
    sizes = data.draw(strategies.sizes())
    rows = data.draw(strategies.rows())
    logits = data.draw(strategies.logits(sizes, rows))
    u = uniform(logits, seeded(), (3,))
    got = sitewise(lambda site, noise: torch.softmax(site + gumbel(noise), -1), logits, u)
    expected = [torch.softmax(site + gumbel(noise), -1) for site, noise in zip(logits, u, strict=True)]
    same(tuple(got), tuple(expected), "softmax")
    index = gumbel_argmax(logits, u)
    same(tuple(index), tuple(x.argmax(-1) for x in expected), "argmax")
    assert all(i.shape == (3, *rows) for i in index)


def test_a_layout_keeps_the_order_within_a_size() -> None:
    assert layout_of((3, 2, 3, 2, 5)) == ((0, 2), (1, 3), (4,))


def test_views_are_made_once_and_slices_are_tuples() -> None:
    whole = stacked(logits_like((3, 2, 3)))
    assert whole[1] is whole[1]
    assert isinstance(whole[:2], tuple)
    assert isinstance(whole, Stacked)


@pytest.mark.parametrize("name", estimators.available())
def test_interleaved_sizes_are_those_of_sorted_sites(name: str) -> None:
    """Sites that change places take their noise and their gradients with them."""
    sizes, order = (3, 2, 3, 2), (1, 3, 0, 2)
    try:
        estimator = estimators.get(name, sizes=sizes).eval()
        other = estimators.get(name, sizes=[sizes[i] for i in order]).eval()
    except ValueError as refusal:
        pytest.skip(str(refusal))
    if name in ("unordered", "partly_exact", "sum_and_sample"):
        pytest.skip("goes through the sites in their order")
    logits = logits_like(sizes, (5,))
    noise = estimator.draw(logits, seeded())

    def moved(of: object) -> object:
        of = tuple(of) if isinstance(of, Stacked) else of
        if isinstance(of, tuple) and len(of) == len(sizes) and isinstance(of[0], torch.Tensor):
            return tuple(of[i] for i in order)
        return type(of)(*map(moved, of)) if hasattr(of, "_fields") else of  # type: ignore[call-overload]

    objective = Joint(sizes, (5,))

    def back(sample: oracles.Sites) -> torch.Tensor:
        return objective(tuple(sample[order.index(i)] for i in range(len(sizes))))

    loss, grads = estimator.estimate(objective, logits, noise)
    again, others = other.estimate(back, tuple(logits[i] for i in order), moved(noise))
    same(again, loss, "loss", rtol=1e-9)
    same(tuple(others[order.index(i)] for i in range(len(sizes))), grads, "gradients", rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["rloo", "concrete", "rebar", "carms", "reinforce"])
def test_a_common_shift_of_the_logits_loses_no_digit_of_the_noise(name: str) -> None:
    """fp32 logits of 1e7 leave no room for Gumbel noise; what is drawn is what would be drawn at 0."""
    logits = tuple(site.float() for site in logits_like((3, 4), (200,)))
    logits = tuple((site * 4).round() for site in logits)  # 1e7 + these is exact
    estimator = estimators.get(name, sizes=(3, 4)).eval()
    expected = run(estimator, logits, Joint((3, 4), (200,), torch.float32))
    got = run(estimator, tuple(site + 1e7 for site in logits), Joint((3, 4), (200,), torch.float32))
    same(got, expected, "another estimate", rtol=1e-5, atol=1e-6)
