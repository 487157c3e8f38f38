"""Holding q to a share of the full network's MACs, and choosing the architecture that meets it."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmo.config import WideResNetConfig
from vmo.space import ArchitectureDistribution, Penalty, Space, normalised_penalty
from vmo.target import TOLERANCE, Target, most_probable

CONFIG = WideResNetConfig(10, 1)


def spaces(task: str, step: int = 4) -> tuple[Space, Penalty]:
    space = Space(task, CONFIG.widths, step)
    return space, normalised_penalty(space, 1.0, CONFIG.macs(32))


def cost(space: Space, penalty: Penalty, index: tuple[int, ...]) -> float:
    sites = (torch.eye(n, dtype=torch.float64)[i] for n, i in zip(space.sizes, index, strict=True))
    return float(penalty.expected(space, tuple(sites)))


@given(task=st.sampled_from(["depth", "width", "joint"]), ratio=st.floats(0.05, 1), seed=st.integers(0, 999))
def test_the_most_probable_architecture_of_a_cost_is_that_of_enumeration(task: str, ratio: float, seed: int) -> None:
    space, penalty = spaces(task)
    generator = torch.Generator().manual_seed(seed)
    logits = tuple(3 * torch.randn(n, generator=generator, dtype=torch.float64) for n in space.sizes)
    found = most_probable(space, logits, penalty, ratio)
    log_q = [torch.log_softmax(site, -1) for site in logits]

    def score(index: tuple[int, ...]) -> float:
        return sum(float(site[i]) for site, i in zip(log_q, index, strict=True))

    every = list(itertools.product(*map(range, space.sizes)))
    miss = {index: abs(cost(space, penalty, index) - ratio) for index in every}
    rounding = 5e-4 * len(space.sizes)
    if min(miss.values()) > TOLERANCE - rounding:  # none is surely within
        assert miss[found] <= max(min(miss.values()), TOLERANCE) + rounding
    else:
        assert miss[found] <= TOLERANCE + rounding
        surely = max(score(index) for index in every if miss[index] <= TOLERANCE - rounding)
        assert score(found) >= surely - 1e-9


def test_unused_blocks_keep_their_own_mode() -> None:
    """They have no cost, so nothing else may decide them; extraction leaves them out."""
    space, penalty = spaces("joint")
    logits = tuple(torch.zeros(n) for n in space.sizes)
    logits[0][0] = 9.0
    logits[3][5] = 1.0
    found = most_probable(space, logits, penalty, cost(space, penalty, (0, 3, 0, 0)))
    assert found[0] == 0
    assert found[3] == 5


@pytest.mark.parametrize("task", ["depth", "width", "joint"])
@pytest.mark.parametrize("ratio", [0.5, 0.8])
def test_the_penalty_alone_brings_the_expected_cost_to_the_target(task: str, ratio: float) -> None:
    space, penalty = spaces(task)
    q, target = ArchitectureDistribution(space), Target(penalty, ratio)
    optimizer = torch.optim.Adam(q.parameters(), lr=0.02)
    for _ in range(1000):
        optimizer.zero_grad()
        target.expected(space, q.probabilities()).backward()
        optimizer.step()
    assert float(penalty.expected(space, q.probabilities()).detach()) == pytest.approx(ratio, abs=2e-3)


def test_a_pull_of_half_a_nat_misses_the_target_by_half_a_point() -> None:
    """As the docstring says: at the optimum s (r − t) is what the loss gains per unit of cost."""
    space, penalty = spaces("width")
    q, target = ArchitectureDistribution(space), Target(penalty, 0.6)
    optimizer = torch.optim.Adam(q.parameters(), lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        spent = penalty.expected(space, q.probabilities())
        (target.expected(space, q.probabilities()) - 0.5 * spent).backward()
        optimizer.step()
    assert float(penalty.expected(space, q.probabilities()).detach()) == pytest.approx(0.605, abs=1e-3)


@pytest.mark.parametrize("ratio", [-0.1, 0.0, 1.01, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="target_macs must lie in"):
        Target(spaces("width")[1], ratio)


def test_a_target_below_the_smallest_network_is_refused() -> None:
    space, penalty = spaces("width")
    least = cost(space, penalty, (0, 0, 0))
    Target(penalty, least).check(space)
    with pytest.raises(ValueError, match=r"the smallest width costs 0\.\d+"):
        Target(penalty, least - 0.02).check(space)
