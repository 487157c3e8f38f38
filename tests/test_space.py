"""Spaces of architectures, distributions over them, and penalties: against enumeration and against counted networks."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import check_means
from strategies import seeds
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vmo.config import WideResNetConfig
from vmo.extract import extract, parameters
from vmo.space import (
    TASKS,
    Architecture,
    ArchitectureDistribution,
    Penalty,
    Space,
    expected_widths,
    literal_penalty,
    normalised_penalty,
)
from vmo.wrn import WideResNet

SMALL = (4, 6, 8)
"""Hidden channels of a made-up network with three blocks: few enough to enumerate."""

tasks = st.sampled_from(TASKS)


def spaces() -> st.SearchStrategy[Space]:
    return st.builds(Space, tasks, st.just(SMALL), st.sampled_from([1, 2]))


def random_distribution(space: Space, seed: int, spread: float = 1.5) -> ArchitectureDistribution:
    q = ArchitectureDistribution(space).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in q.parameters():
            site.copy_(spread * torch.randn(site.shape, generator=generator, dtype=torch.float64))
    return q


def enumerate_q(q: ArchitectureDistribution) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Every combination of categories with its probability, differentiable in the logits."""
    for index in itertools.product(*map(range, q.space.sizes)):
        log_q = [torch.log_softmax(site, -1)[i] for site, i in zip(q.logits, index, strict=True)]
        yield index, torch.stack(log_q).sum().exp()


def one_hot_sites(space: Space, index: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.eye(k, dtype=torch.float64)[i] for k, i in zip(space.sizes, index, strict=True))


# --- spaces ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "step", "sizes"),
    [
        ("depth", 1, (3,)),
        ("depth", 2, (3,)),
        ("width", 1, (4, 6, 8)),
        ("width", 2, (2, 3, 4)),
        ("joint", 1, (3, 4, 6, 8)),
        ("joint", 2, (3, 2, 3, 4)),
    ],
)
def test_sizes_and_split(task: str, step: int, sizes: tuple[int, ...]) -> None:
    space = Space(task, SMALL, step)
    assert space.sizes == sizes
    sites = tuple(torch.zeros(k) for k in sizes)
    depth, widths = space.split(sites)
    assert (depth is None) == (task == "width")
    assert [site.shape[-1] for site in widths] == ([] if task == "depth" else [k // step for k in SMALL])
    assert len(widths) + (depth is not None) == len(sites)


def test_sizes_of_the_paper() -> None:
    space = Space("joint", WideResNetConfig(28, 10).widths)
    assert space.sizes == (12, *(160,) * 4, *(320,) * 4, *(640,) * 4)


@pytest.mark.parametrize(
    ("task", "step", "index", "expected"),
    [
        ("depth", 1, (0,), Architecture(1, (4,))),
        ("depth", 1, (2,), Architecture(3, (4, 6, 8))),
        ("width", 1, (0, 5, 2), Architecture(3, (1, 6, 3))),
        ("width", 2, (1, 0, 3), Architecture(3, (4, 2, 8))),
        ("joint", 2, (1, 0, 2, 3), Architecture(2, (2, 6))),
        ("joint", 1, (2, 3, 5, 7), Architecture(3, (4, 6, 8))),
    ],
)
def test_architecture_of_an_index(task: str, step: int, index: tuple[int, ...], expected: Architecture) -> None:
    assert Space(task, SMALL, step).architecture(index) == expected


@given(space=spaces())
def test_last_categories_are_the_full_network(space: Space) -> None:
    assert space.architecture([k - 1 for k in space.sizes]) == space.full == Architecture(3, SMALL)


@pytest.mark.parametrize(
    ("task", "step", "message"),
    [
        ("breadth", 1, "task must be one of depth, width, joint, got 'breadth'"),
        ("width", 4, r"the width step must divide every width of \[4, 6, 8\], got 4"),
        ("width", 0, "the width step must divide"),
    ],
)
def test_spaces_that_cannot_be(task: str, step: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Space(task, SMALL, step)


# --- distributions --------------------------------------------------------------------------------------------------


@given(space=spaces(), seed=seeds, spread=st.floats(0, 40))
def test_entropy_lies_between_certain_and_uniform(space: Space, seed: int, spread: float) -> None:
    entropy = random_distribution(space, seed, spread).entropy()
    assert entropy.shape == (len(space.sizes),)
    for value, size in zip(entropy.tolist(), space.sizes, strict=True):
        assert -1e-12 <= value <= math.log(size) + 1e-12


@given(space=spaces())
def test_the_initial_distribution_is_uniform(space: Space) -> None:
    q = ArchitectureDistribution(space)
    assert q.entropy().tolist() == pytest.approx([math.log(k) for k in space.sizes], rel=1e-6)
    assert all(p.shape == (k,) and p.requires_grad for p, k in zip(q.logits, space.sizes, strict=True))


@given(space=spaces(), bias=st.floats(-3, 9))
def test_full_bias_raises_the_logit_of_the_last_category(space: Space, bias: float) -> None:
    q = ArchitectureDistribution(space, full_bias=bias)
    for site, p in zip(q.logits, q.probabilities(), strict=True):
        assert site.tolist() == [0.0] * (len(site) - 1) + [pytest.approx(bias)]
        assert float(p[-1].detach()) == pytest.approx(math.exp(bias) / (len(site) - 1 + math.exp(bias)), rel=1e-5)
    if bias > 1e-3:
        assert q.mode() == space.full


@settings(max_examples=20)
@given(space=spaces(), seed=seeds)
def test_expectations_against_enumeration(space: Space, seed: int) -> None:
    q = random_distribution(space, seed)
    depth = width = 0.0
    best, mode = -1.0, None
    for index, probability in enumerate_q(q):
        p = float(probability.detach())
        d, widths = space.split(tuple(torch.tensor(i) for i in index))
        depth += p * (len(SMALL) if d is None else int(d) + 1)
        kept = [(int(k) + 1) * space.step for k in widths] or SMALL
        width += p * sum(k / full for k, full in zip(kept, SMALL, strict=True)) / len(SMALL)
        if p > best:
            best, mode = p, space.architecture(index)
    assert float(q.expected_depth()) == pytest.approx(depth, rel=1e-10)
    assert float(q.expected_width()) == pytest.approx(width, rel=1e-10)
    assert q.mode() == mode


@pytest.mark.parametrize("task", TASKS)
def test_samples_follow_q(task: str) -> None:
    """Of 2,000 architectures, the marginals of depth and of the widths in the blocks that all have; alarm 1e-6."""
    space = Space(task, SMALL, 2)
    q = random_distribution(space, 3, 1.0)
    generator = torch.Generator().manual_seed(0)
    drawn = [q.sample(generator) for _ in range(2_000)]
    depth, widths = (q.probabilities()[0], q.probabilities()[1:]) if task != "width" else (None, q.probabilities())
    if depth is not None:
        blocks = torch.tensor([[float(a.blocks == d) for d in (1, 2, 3)] for a in drawn])
        check_means(blocks.double(), depth.detach())
    else:
        assert {a.blocks for a in drawn} == {3}
    if widths:
        first = torch.tensor([[float(a.hidden[0] == k) for k in (2, 4)] for a in drawn])
        check_means(first.double(), widths[0].detach())
    else:
        assert all(a.hidden == SMALL[: a.blocks] for a in drawn)
    assert all(len(a.hidden) == a.blocks for a in drawn)


def test_sampling_uses_the_generator_it_is_given() -> None:
    q = random_distribution(Space("joint", SMALL), 0)
    state = torch.get_rng_state()
    first, second = ([q.sample(torch.Generator().manual_seed(5)) for _ in range(4)] for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state())


# --- penalties ------------------------------------------------------------------------------------------------------


def literal_r(space: Space, index: tuple[int, ...], depth: float, width: float, active: bool) -> float:
    """γ_d d + γ_w Σ k_l, of the terms that the task has, from the formula in the paper."""
    d = len(SMALL) if space.task == "width" else index[0] + 1
    k = [] if space.task == "depth" else [(i + 1) * space.step for i in index[-len(SMALL) :]]
    return (0 if space.task == "width" else depth * d) + width * sum(k[:d] if active else k)


@settings(max_examples=20)
@given(space=spaces(), seed=seeds, active=st.booleans())
def test_the_expected_literal_penalty_and_its_gradient(space: Space, seed: int, active: bool) -> None:
    q = random_distribution(space, seed)
    got = literal_penalty(space, 0.7, 0.3, active).expected(space, q.probabilities())
    expected = sum((p * literal_r(space, i, 0.7, 0.3, active) for i, p in enumerate_q(q)), torch.zeros(()).double())
    torch.testing.assert_close(got, expected)
    for one, other in zip(torch.autograd.grad(got, q.logits), torch.autograd.grad(expected, q.logits), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_the_literal_penalty_has_the_coefficients_of_the_paper() -> None:
    space = Space("joint", SMALL)
    last = one_hot_sites(space, (2, 3, 5, 7))
    assert float(literal_penalty(space).expected(space, last)) == pytest.approx(3 * 1e-3 + 18 * 1e-8, rel=1e-12)


@given(space=spaces(), data=st.data())
def test_the_penalty_of_a_sample_is_its_r(space: Space, data: st.DataObject) -> None:
    index = data.draw(st.tuples(*(st.integers(0, k - 1) for k in space.sizes)))
    active = data.draw(st.booleans())
    got = literal_penalty(space, 2.0, 0.5, active).expected(space, one_hot_sites(space, index))
    assert float(got) == pytest.approx(literal_r(space, index, 2.0, 0.5, active))


@settings(max_examples=10)
@given(
    space=spaces(),
    fixed=st.tuples(*[st.floats(0, 2)] * 3),
    slope=st.tuples(*[st.floats(0, 2)] * 3),
    active=st.booleans(),
)
def test_reach_is_the_largest_difference_of_each_kind(
    space: Space, fixed: tuple[float, ...], slope: tuple[float, ...], active: bool
) -> None:
    """Of widths at full depth; of depths at full width."""
    indices = list(itertools.product(*map(range, space.sizes)))
    penalty = Penalty(fixed, slope, active)
    widths = 0 if space.task == "width" else 1
    for what, among in (
        ("width", [i for i in indices if widths == 0 or i[0] == space.sizes[0] - 1]),
        ("depth", [i for i in indices if i[widths:] == tuple(k - 1 for k in space.sizes[widths:])]),
    ):
        values = [float(penalty.expected(space, one_hot_sites(space, index))) for index in among]
        got = penalty.reach(space)[what]
        assert got == pytest.approx(max(values) - min(values), rel=1e-9, abs=1e-9)


def test_the_literal_width_penalty_reaches_almost_nothing() -> None:
    config = WideResNetConfig(28, 10)
    for task in ("width", "joint"):
        assert 0 < literal_penalty(Space(task, config.widths)).reach(Space(task, config.widths))["width"] < 4.5e-5
    for task in ("depth", "joint"):
        space = Space(task, config.widths)
        assert literal_penalty(space).reach(space)["depth"] == pytest.approx(0.011)


def macs(network: WideResNet, size: int) -> int:
    """Multiply-accumulates for one image, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, network.config.channels, size, size, device="meta"))
    return counter.get_total_flops() // 2


CONFIGS = [
    WideResNetConfig(10, 1, 10, 1, heads="all"),
    WideResNetConfig(16, 1, 10, 3, heads="all"),
    WideResNetConfig(16, 2, 100, 3, heads="all"),
]


@settings(max_examples=20)
@given(task=tasks, config=st.sampled_from(CONFIGS), size=st.sampled_from([8, 9, 32]), data=st.data())
def test_normalised_penalties_count_the_extracted_network(
    task: str, config: WideResNetConfig, size: int, data: st.DataObject
) -> None:
    """γ r(A) = γ · cost(extracted network) / cost(full network), for MACs and for parameters."""
    space = Space(task, config.widths, 4)
    index = data.draw(st.tuples(*(st.integers(0, k - 1) for k in space.sizes)))
    with torch.device("meta"):
        network = WideResNet(config)
        compact, full = (extract(network, a).eval() for a in (space.architecture(index), space.full))
    sample = one_hot_sites(space, index)

    share = normalised_penalty(space, 3.0, config.parameters()).expected(space, sample)
    assert float(share) == pytest.approx(3 * parameters(compact) / parameters(full), rel=1e-12)

    share = normalised_penalty(space, 3.0, config.macs(size)).expected(space, sample)
    assert float(share) == pytest.approx(3 * macs(compact, size) / macs(full, size), rel=1e-12)
    assert compact.config.total_macs(size) == macs(compact, size)


@given(space=spaces(), seed=seeds)
def test_expected_widths_are_in_channels(space: Space, seed: int) -> None:
    _, widths = space.split(random_distribution(space, seed).probabilities())
    if widths:
        expected = [sum(space.step * (i + 1) * float(p) for i, p in enumerate(site.detach())) for site in widths]
        assert expected_widths(space, widths).tolist() == pytest.approx(expected)
