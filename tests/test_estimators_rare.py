"""Estimators that claim to be unbiased, where categories have probabilities down to 1e-6: see `rare_noise`."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import oracles
import pytest
import torch
from oracles import Sites, seeded, sizes_of
from rare_noise import HOW, PLANS, RESOLUTION, by_order, check_rare, compare, integral_of, partner, winners_of

import estimators
from estimators import Estimate, Estimator
from estimators.noise import conditional_gumbel
from estimators.rebar import Rebar
from estimators.rloo import Rloo

Case = tuple[str, dict[str, Any]]

PROBABILITIES = {
    "one_rare": ((1e-6, 1 - 1e-6),),
    "two_rare": ((1e-6, 1e-3, 1 - 1e-6 - 1e-3),),
    "two_sites": ((1e-6, 1 - 1e-6), (1e-3, 1 - 1e-3)),
}
SPACES: dict[str, Sites] = {
    name: tuple(torch.tensor(site, dtype=torch.float64).log() for site in sites)
    for name, sites in PROBABILITIES.items()
}

OPTIONS: list[Case] = [
    ("reinforce", {"baseline": "none"}),
    ("rloo", {"samples": 3}),
    ("double_cv", {"samples": 3}),
    ("relax", {"relaxed_objective": True}),
    ("carms", {"samples": 3}),
    ("arsm", {"reference": "one"}),
    ("unordered", {"samples": 3}),
    ("sum_and_sample", {"top": 3}),
    ("averaged", {"of": "rloo", "samples": 2}),
    ("averaged", {"of": "disarm", "samples": 2}),
    ("averaged", {"of": "rebar", "samples": 2}),
    ("partly_exact", {"of": "rebar"}),
    ("partly_exact", {"of": "carms", "sites": (1,)}),
    ("partly_exact", {"of": "arsm"}),
]
CASES = [(name, {}) for name in estimators.available()] + OPTIONS


def name_of(case: Case) -> str:
    name, options = case
    return name + "".join(f"[{key}={value}]" for key, value in options.items())


def move(estimator: Estimator) -> Estimator:
    """Parameters by at least 0.5 (`oracles.randomise`), and running means too."""
    for buffer in estimator.buffers():
        if buffer.is_floating_point():  # an index is no mean
            buffer.add_(0.6)
    return oracles.randomise(estimator)


SMALL = {"averaged[of=rebar][samples=2]": ["one_rare"], "relax[relaxed_objective=True]": ["one_rare", "two_rare"]}
"""Cases of too many strata, or too slow, elsewhere."""


def claims() -> list[Any]:
    """(case, space, state) of every estimator that claims to be unbiased, where it accepts the space."""
    found = []
    for case, space in itertools.product(CASES, SPACES):
        if space not in SMALL.get(name_of(case), SPACES):
            continue
        try:
            estimator = estimators.get(case[0], sizes=sizes_of(SPACES[space]), **case[1])
        except ValueError:
            continue
        if estimator.unbiased:
            moves = bool([*estimator.parameters(), *estimator.buffers()])
            for state in ["fresh", "randomised"][: 1 + moves]:
                found.append(pytest.param(case, space, state, id=f"{name_of(case)}-{space}-{state}"))
    return found


@pytest.mark.parametrize(("case", "space", "state"), claims())
def test_expectation_is_enumeration_down_to_one_in_a_million(case: Case, space: str, state: str) -> None:
    name, options = case
    estimator = estimators.get(name, sizes=sizes_of(SPACES[space]), **options)
    resolution = check_rare(name, move(estimator) if state == "randomised" else estimator, SPACES[space])
    assert resolution < RESOLUTION, f"only errors above {resolution:.1%} would be seen in {name}; {HOW}"


@pytest.mark.parametrize("name", estimators.available())
def test_every_estimator_accepts_a_space(name: str) -> None:
    """One that refuses them all would be left out."""
    for logits in SPACES.values():
        with contextlib.suppress(ValueError):
            estimators.get(name, sizes=sizes_of(logits))
            return
    pytest.fail(f"{name} refuses every space here; give SPACES of test_estimators_rare one that it accepts")


@pytest.mark.parametrize("name", ["rloo", "rebar", "unordered", "disarm", "carms", "arsm"])
@pytest.mark.parametrize("space", SPACES)
def test_the_integrated_noise_is_uniform(name: str, space: str) -> None:
    """Its first two moments: of the uniforms, or where only their proportions are integrated, of those."""
    logits = SPACES[space]
    plan = PLANS[name]
    found = integral_of(plan, name, estimators.get(name, sizes=sizes_of(logits)).draw(logits, seeded()), logits)
    fields = [found.noise.u, found.noise.v] if name == "rebar" else [getattr(found.noise, "u", found.noise)]
    for x in (site for field in fields for site in field):
        k = x.shape[-1]
        x = x.movedim(-2, 0)
        mean, square, product = 1 / 2, 1 / 3, 1 / 4
        if name == "arsm":
            x = torch.log(x) / torch.log(x).sum(-1, keepdim=True)
            mean, square, product = 1 / k, 2 / (k * (k + 1)), 1 / (k * (k + 1))
        flat = x.flatten(1)
        i, j = torch.triu_indices(flat.shape[1], flat.shape[1])
        values = torch.cat([torch.ones_like(flat[:, :1]), flat, flat[:, i] * flat[:, j]], -1)
        truth = torch.ones(values.shape[1], dtype=torch.float64)
        truth[1 : 1 + flat.shape[1]] = mean
        truth[1 + flat.shape[1] :] = product
        truth[1 + flat.shape[1] :][i == j] = square
        compare(found.of(values, plan.repetitions), truth, f"moments for {name}:")


@pytest.mark.parametrize("p", [site for sites in PROBABILITIES.values() for site in sites])
@pytest.mark.parametrize("fine", [True, False])
def test_a_stratum_has_its_winner(p: tuple[float, ...], fine: bool) -> None:
    """In every stratum one category wins, and together those of a category have its probability."""
    p = torch.tensor(p, dtype=torch.float64)
    block = by_order(p, fine)
    stratum = torch.arange(len(block.mass)).repeat_interleave(50)
    s = torch.rand(len(stratum), len(p), generator=seeded(), dtype=torch.float64)
    winner = winners_of(block.place(stratum, s, seeded()), p.log()).view(-1, 50)
    assert torch.equal(winner, winner[:, :1].expand_as(winner))
    mass = torch.zeros_like(p).index_add(0, winner[:, 0], block.mass)
    oracles.same(mass, p, "strata of another probability", rtol=1e-9)


def test_z_of_a_partner_is_z() -> None:
    """`partner` gives the v for which the library's z̃, given the winner of u, is z(u)."""
    log_p = SPACES["two_rare"][0]
    u = torch.rand(1000, 3, generator=seeded(), dtype=torch.float64)
    z = log_p - torch.log(-torch.log(u))
    oracles.same(conditional_gumbel(log_p, z.argmax(-1), partner(log_p.exp(), u)), z, "another z̃", rtol=1e-8, atol=1e-8)


class TooLittle(Rloo):
    """RLOO whose rare category counts 3 % too little."""

    def _estimate(self, objective: Any, logits: Sites, noise: Any) -> Any:
        loss, grads = super()._estimate(objective, logits, noise)
        return Estimate(loss, (torch.cat([0.97 * grads[0][..., :1], grads[0][..., 1:]], -1), *grads[1:]))


class Clipped(Rebar):
    """REBAR of probabilities that are never below 1e-5 in its score."""

    def _estimate(self, objective: Any, logits: Sites, noise: Any) -> Any:
        loss, grads = super()._estimate(objective, logits, noise)
        p = [torch.softmax(site, -1) for site in logits]
        return Estimate(loss, tuple(g - (q.clamp(min=1e-5) - q) for g, q in zip(grads, p, strict=True)))


class Mixing(Rebar):
    """REBAR with a product of u and v of mean zero: right, and no sum."""

    def _estimate(self, objective: Any, logits: Sites, noise: Any) -> Any:
        loss, grads = super()._estimate(objective, logits, noise)
        return Estimate(loss, tuple(g + (u - 0.5) * (v - 0.5) for g, u, v in zip(grads, noise.u, noise.v, strict=True)))


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [("rloo", TooLittle, "expected"), ("rebar", Clipped, "expected"), ("rebar", Mixing, "no function of u plus")],
)
@pytest.mark.parametrize("space", SPACES)
def test_what_is_wrong_with_rare_categories_alone_is_rejected(name: str, wrong: Any, words: str, space: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_rare(name, wrong(sizes_of(SPACES[space])), SPACES[space])


def test_noise_of_an_unknown_kind_says_how_to_be_included() -> None:
    class Other(Rloo):
        def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Any:
            return (*super().draw(logits, generator), torch.zeros(()))

    with pytest.raises(pytest.fail.Exception, match="PLANS"):
        check_rare("other", Other((2,)), SPACES["one_rare"])
