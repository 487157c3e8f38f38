"""Exact means of estimates where categories have probabilities down to 1e-6.

No affordable sample sees such a category, so the uniforms that an estimator asks for are integrated instead of drawn.
They are cut into blocks, every block into strata of known probability, and the combinations of strata are evaluated:

    E g = Σ_b P(b) E[g | b]

at one point in a stratum where the estimate is constant there, at the nodes of a quadrature rule where it is a
polynomial, and else at many randomly shifted low-discrepancy points, in strata that follow the rare categories down
decade by decade. Any such cut is right for any estimator; one that does not suit it only costs resolution, and a lack
of resolution fails.

False alarms: independent repetitions of the whole integral give Student's t of every component (loss, weight gradient,
logit gradients), and a right estimator is rejected with probability 1e-6 per test (Bonferroni).
Power: the smallest relative error that would be rejected is asserted to be below 2 % in every component, those of the
rare categories (of size 1e-6) included. Where an estimate is constant in every stratum, rounding alone sets it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from oracles import ALARM, Joint, Sites, enumerate_expectation, enumerate_weight_gradient, seeded, sizes_of
from scipy import stats
from torch import Tensor
from torch.utils import _pytree as pytree

import estimators
from estimators import Estimator

RESOLUTION = 0.02
RAREST = 1e-6
EDGE = torch.finfo(torch.float64)


# --- blocks of uniforms ---------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """`size` of an estimator's uniforms, cut into strata of probabilities `mass`.

    `place` takes the strata `(n,)`, independent uniforms `(n, size)` and a generator, and gives the estimator's
    uniforms `(n, size)`, distributed as in those strata.
    """

    mass: Tensor
    size: int
    place: Callable[[Tensor, Tensor, torch.Generator], Tensor]


def decades(p: Tensor) -> list[float]:
    """Where an exponential is cut that matters where it is about p: P(X < cut) is 0.1, 0.01, … and p / 10 or more."""
    return [0.0, *(10.0**-i for i in range(max(0, round(-math.log10(float(p)))) + 1, 0, -1)), 1.0]


def cells(p: Tensor, fine: bool) -> tuple[Tensor, Tensor]:
    """Lower and upper ends `(cells, K)` of uniforms, one decade each if `fine`."""
    ends = [list(itertools.pairwise(decades(q) if fine and q < 0.1 else [0.0, 1.0])) for q in p]
    both = torch.tensor(list(itertools.product(*ends)), dtype=p.dtype)
    return both[..., 0], both[..., 1]


def by_order(p: Tensor, fine: bool) -> Block:
    """Uniforms of one site, whose exponentials −log u are arrivals of rate p: in strata of the order of arrival.

    The first to arrive is the argmax of log p − log(−log u). The gaps between arrivals are independent exponentials,
    of the rate of those that have not arrived.
    """
    parts = []
    for order in itertools.permutations(range(len(p))):
        left = p[list(order)].flip(-1).cumsum(-1).flip(-1)
        low, high = cells(left, fine)
        each = [torch.tensor(order).double(), left, low, high, p[list(order)] / left]
        parts.append(torch.stack([x.expand_as(low) for x in each]))
    order, left, low, high, first = torch.cat(parts, 1)
    order = order.long()

    def place(stratum: Tensor, s: Tensor, _: torch.Generator) -> Tensor:
        gap = -torch.log1p(-(low[stratum] + (high - low)[stratum] * s))
        arrival = (gap / left[stratum]).cumsum(-1)
        return torch.exp(-p * torch.zeros_like(arrival).scatter(-1, order[stratum], arrival))

    return Block(first.prod(-1) * (high - low).prod(-1), len(p), place)


def free(p: Tensor, fine: bool) -> Block:
    """Uniforms of one site, 1 − u in decades."""
    low, high = cells(p, fine)
    return Block((high - low).prod(-1), len(p), lambda stratum, s, _: 1 - (low[stratum] + (high - low)[stratum] * s))


def partner(p: Tensor, u: Tensor) -> Tensor:
    """The uniforms v `(*lead, K)` for which z̃(v) given the winner of u is z(u); independent of the winner."""
    e = -torch.log(u)
    first = (e / p).amin(-1, keepdim=True)
    return torch.exp(-torch.where(e / p == first, first, (e - p * first).clamp(min=0)))


def coins(p: Tensor) -> Tensor:
    """P(up) of every coin but the last, the least probable category first."""
    p = p.sort().values
    return (p / p.flip(-1).cumsum(-1).flip(-1))[:-1]


def by_coins(p: Tensor) -> Block:
    """Uniforms u of the coins of one site, cut where u and 1 − u pass P(up)."""
    up = coins(p)
    cuts = torch.stack([torch.zeros_like(up), up, 1 - up, torch.ones_like(up)], -1)  # (coins, 4)
    cell = torch.tensor(list(itertools.product(range(3), repeat=len(up))))  # (strata, coins)
    coin = torch.arange(len(up))
    low, high = cuts[coin, cell], cuts[coin, cell + 1]

    def place(stratum: Tensor, s: Tensor, _: torch.Generator) -> Tensor:
        return torch.cat([low[stratum] + (high - low)[stratum] * s[:, :-1], s[:, -1:]], -1)

    return Block((high - low).prod(-1), len(p), place)


def by_copula(p: Tensor, n: int) -> Block:
    """Uniforms `(n, K)` whose exponentials are in proportions d ~ Dir(1_n) for every coin.

    Cut at d_i = 1 − P(up)^{1/(n−1)}, which at most one of rare coins exceeds: in every stratum one i, or none.
    """
    up, k = coins(p), len(p)
    assert bool((up < 2.0 ** (1 - n)).all())
    edge = 1 - up ** (1 / (n - 1))
    which = torch.tensor(list(itertools.product(range(n + 1), repeat=k - 1)))  # n: none

    def dirichlet(e: Tensor) -> Tensor:
        return e / e.sum(1, keepdim=True)

    def exponentials(rows: int, generator: torch.Generator) -> Tensor:
        return -torch.log1p(-torch.rand(rows, n, k, generator=generator, dtype=p.dtype))

    def place(stratum: Tensor, s: Tensor, generator: torch.Generator) -> Tensor:
        d = dirichlet(-torch.log(s.view(-1, n, k)))
        for coin in range(k - 1):
            exceeds = which[stratum, coin]
            one = torch.nn.functional.one_hot(exceeds, n + 1)[:, :n]
            while bool((wrong := (exceeds == n) & (d[..., coin].amax(1) > edge[coin])).any()):
                d[wrong, :, coin] = dirichlet(exponentials(int(wrong.sum()), generator))[..., coin]
            inside = edge[coin] * one + (1 - edge[coin]) * d[..., coin]
            d[..., coin] = torch.where((exceeds == n).unsqueeze(-1), d[..., coin], inside)
        total = exponentials(len(s), generator).sum(1, keepdim=True)
        return torch.exp(-total * d).flatten(1)

    return Block(torch.where(which == n, 1 - n * up, up).prod(-1), n * k, place)


def by_proportions(p: Tensor) -> Block:
    """Uniforms of one site, whose exponentials are in proportions π ~ Dir(1_K): one stratum for every node of a rule.

    The rule is exact for functions that are cubic in π between the lines π_a p_i = π_b p_j.
    """
    ratios = [float(p[i] / p[j]) for i, j in itertools.permutations(range(len(p)), 2)]
    x, mass = gauss([r / (1 + r) for r in ratios]) if len(p) == 2 else gauss([])
    pi = torch.stack([x, 1 - x], -1)
    if len(p) == 3:
        # in the coordinates x = π_0 and y = π_1 every line is y = a + b x; the last two are the edges of the triangle
        lines = [(0.0, 1 / r) for r in ratios] + [(1.0, -1 - 1 / r) for r in ratios]
        lines += [(r / (1 + r), -r / (1 + r)) for r in ratios] + [(0.0, 0.0), (1.0, -1.0)]
        meet = [(a - c) / (d - b) for (a, b), (c, d) in itertools.combinations(lines, 2) if b != d]
        nodes = []
        for x0, wx in zip(*gauss(meet), strict=True):
            y, wy = gauss([float(a + b * x0) for a, b in lines], float(1 - x0))
            nodes.append(torch.stack([x0.expand_as(y), y, 1 - x0 - y, 2 * wx * wy], -1))
        pi, mass = torch.cat(nodes).split([3, 1], -1)
    assert pi.shape[-1] == len(p)

    def place(stratum: Tensor, s: Tensor, _: torch.Generator) -> Tensor:
        return torch.exp(pi[stratum] * torch.log(s).sum(-1, keepdim=True))

    return Block(mass.flatten(), len(p), place)


def gauss(breaks: list[float], end: float = 1.0) -> tuple[Tensor, Tensor]:
    """Nodes and weights on (0, end): two Gauss-Legendre nodes between every two breakpoints."""
    inside = torch.tensor([0.0, *breaks, end], dtype=torch.float64).clamp(0, end).unique()
    inside = torch.cat([inside[:1], inside[1:][inside.diff() > 1e-15 * end]])
    middle, half = (inside[1:] + inside[:-1]) / 2, inside.diff() / 2
    return torch.cat([middle - half / 3**0.5, middle + half / 3**0.5]), half.repeat(2)


# --- plans: which blocks, how often ---------------------------------------------------------------------------------


class Plan(NamedTuple):
    """How the noise of an estimator is integrated.

    Attributes:
        blocks: the blocks of one site's noise, from its probabilities and the shape of the uniforms without rows.
        repetitions: of the whole integral, for the standard errors.
        rows: for every site, about, to be divided among the combinations of strata. 0: one in each.
        coupled: the noise is u and v, and given the winners of u an estimate is a function of u plus one of v, which
            the check asserts. Its mean then does not depend on how u and v depend on each other, and v is `partner`.
    """

    blocks: Callable[[Tensor, torch.Size], list[Block]]
    repetitions: int = 16
    rows: int = 0
    coupled: bool = False


def units(block: Callable[[Tensor], Block]) -> Callable[[Tensor, torch.Size], list[Block]]:
    """The same block for everything that has the last dimension, that of categories, to itself."""
    return lambda p, shape: [block(p)] * math.prod(shape[:-1])


STEPS = Plan(units(functools.partial(by_order, fine=False)))
"""For estimates that the winners of log p − log(−log u) decide."""
SMOOTH = Plan(units(functools.partial(by_order, fine=True)), repetitions=32, rows=2**18)
"""For estimates that vary with the perturbed log-probabilities."""
PLANS: dict[str, Plan] = {
    **dict.fromkeys(["exact", "reinforce", "rloo", "nvil", "muprop", "double_cv", "rodeo", "sweep"], STEPS),
    **dict.fromkeys(["rebar", "relax"], SMOOTH._replace(coupled=True)),
    # of the prefixes in the beam, what the likeliest goes on with decides
    "unordered": SMOOTH._replace(
        rows=2**19, blocks=lambda p, shape: [by_order(p, fine=i == 0) for i in range(shape[0])]
    ),
    "bitflip": SMOOTH._replace(rows=2**20),  # the choice of the site is a jump that no block cuts at
    "disarm": Plan(units(by_coins)),
    "carms": Plan(lambda p, shape: [by_copula(p, shape[0])]),
    "arsm": Plan(units(by_proportions), repetitions=4),
}
"""Any other estimator has `SMOOTH`, which is right for all whose noise is uniforms, and may be too coarse."""

MOST = 20_000
"""Combinations of strata."""

HOW = (
    "give it an entry in PLANS of tests/rare_noise.py: a Plan whose blocks cut its uniforms where its estimate jumps, "
    "as by_order, by_coins, by_copula or by_proportions do"
)


def innermost(name: str, estimator: Estimator, logits: Sites) -> tuple[str, Sites]:
    """Whose noise it is, and of which sites."""
    while isinstance(inner := getattr(estimator, "inner", None), Estimator):
        logits = tuple(logits[i] for i in getattr(estimator, "rest", range(len(logits))))
        (name,) = (other for other in estimators.available() if estimators.factory(other) is type(inner))
        estimator = inner
    return name, logits


def lay_out(plan: Plan, name: str, noise: Any, logits: Sites) -> tuple[list[Block], Callable[[Tensor], Any]]:
    """All blocks of noise like `noise`, which is of logits without rows, and what makes such noise of `(n, size)`."""
    leaves, spec = pytree.tree_flatten(noise)
    sites = noise.u if hasattr(noise, "u") else noise
    first = pytree.tree_leaves(sites)
    others = [leaf for leaf in leaves if leaf.is_floating_point() and not any(leaf is u for u in first)]
    known = len(first) in (0, len(logits)) and len(others) in (0, len(logits))
    known = known and len(first) + len(others) + sum(not leaf.is_floating_point() for leaf in leaves) == len(leaves)
    if not known or (others and [leaf.shape for leaf in others] != [leaf.shape for leaf in first]):
        shapes = [tuple(leaf.shape) for leaf in leaves]
        pytest.fail(f"the noise of {name}, {type(noise).__name__} of shapes {shapes}, is of no known kind; {HOW}")
    blocks: list[Block] = []
    for leaf, site in zip(first, logits[: len(first)], strict=True):
        blocks += plan.blocks(torch.softmax(site, -1), leaf.shape)
    for leaf, site in zip(others, logits[: len(others)], strict=True):
        if plan.coupled:
            continue
        blocks += units(functools.partial(free, fine=bool(plan.rows)))(torch.softmax(site, -1), leaf.shape)
    order = [next(i for i, leaf in enumerate(leaves) if leaf is one) for one in [*first, *others]]
    if plan.coupled:
        order = order[: len(first)]
    assert sum(block.size for block in blocks) == sum(leaves[i].numel() for i in order)

    def build(flat: Tensor) -> Any:
        filled, start = list(leaves), 0
        for i in order:
            stop = start + leaves[i].numel()
            filled[i] = flat[:, start:stop].unflatten(1, leaves[i].shape).movedim(0, -2)
            start = stop
        if plan.coupled:
            for leaf, i, site in zip(others, order, logits, strict=True):
                at = next(j for j, one in enumerate(leaves) if one is leaf)
                filled[at] = partner(torch.softmax(site, -1), filled[i]).clamp(EDGE.tiny, 1 - EDGE.eps)
        return pytree.tree_unflatten(filled, spec)

    return blocks, build


class Integral(NamedTuple):
    """Noise of so many rows, their weights, the repetition that each belongs to, and their strata `(rows, blocks)`."""

    noise: Any
    weight: Tensor
    repetition: Tensor
    strata: Tensor

    def of(self, values: Tensor, repetitions: int) -> Tensor:
        """`(repetitions, m)` from values `(rows, m)`."""
        total = values.new_zeros(repetitions, values.shape[-1])
        return total.index_add(0, self.repetition, self.weight.unsqueeze(-1) * values)


def integral_of(plan: Plan, name: str, noise: Any, logits: Sites, seed: int = 0) -> Integral:
    blocks, build = lay_out(plan, name, noise, logits)
    generator = seeded(seed)
    count = math.prod(len(block.mass) for block in blocks)
    if count > MOST:
        pytest.fail(f"{count:,} combinations of strata for {name} are too many; {HOW}")
    grid = torch.zeros(1, 0, dtype=torch.int64)
    mass, least = torch.ones(2, 1, dtype=torch.float64)
    for block in blocks:  # every combination of strata, the last block fastest
        each = torch.arange(len(block.mass))
        grid = torch.cat([grid.repeat_interleave(len(each), 0), each.repeat(len(grid)).unsqueeze(-1)], -1)
        mass = (mass.unsqueeze(-1) * block.mass).flatten()
        least = torch.minimum(least.unsqueeze(-1), block.mass).flatten()
    points = torch.ones(plan.repetitions, count, dtype=torch.float64)
    weight = mass.expand_as(points)
    if plan.rows:
        # Where one block is in a rare stratum, as many points as where none is: terms of an estimate mostly depend on
        # one. Where others are too, fewer, and fewer where that is less likely than the rarest category. A combination
        # that would have less than one point has one, at random and with more weight, or none.
        share = (mass / least).sqrt() * (mass / RAREST).clamp(max=1).sqrt()
        share = share * (plan.rows * len(logits) / plan.repetitions / share.sum())
        there = torch.rand(points.shape, generator=generator, dtype=torch.float64) < share
        points = torch.where(share < 1, there, 2 ** share.clamp(min=1).log2().round())
        weight = mass / share.clamp(max=1) / points.clamp(min=1)
    points = points.long().flatten()
    number = torch.arange(len(points)).repeat_interleave(points)  # (rows,), repetitions slowest
    nth = torch.arange(len(number)) - (points.cumsum(0) - points)[number]
    size = sum(block.size for block in blocks)
    base = torch.zeros(1, size, dtype=torch.int64)
    if plan.rows:  # a digital net, shifted in every combination of strata
        base = (torch.quasirandom.SobolEngine(size).draw(int(points.max()), dtype=torch.float64) * 2**30).long()
    shift = torch.randint(2**30, (len(points), size), generator=generator)
    rest = torch.rand(len(number), size, generator=generator, dtype=torch.float64)
    s = (((base[nth] ^ shift[number]) + rest) / 2**30).clamp(EDGE.tiny, 1 - EDGE.eps)
    strata = grid[number % count]
    parts = [torch.zeros(len(s), 0, dtype=torch.float64)]
    start = 0
    for i, block in enumerate(blocks):
        u = block.place(strata[:, i], s[:, start : start + block.size], generator)
        parts.append(u.clamp(EDGE.tiny, 1 - EDGE.eps))
        start += block.size
    return Integral(build(torch.cat(parts, -1)), weight.flatten()[number], number // count, strata)


# --- the check ------------------------------------------------------------------------------------------------------


def compare(repetitions: Tensor, truth: Tensor, what: str) -> Tensor:
    """Reject if the mean of `(r, m)` is not the truth `(m,)`; the relative errors that would be rejected `(m,)`."""
    r, m = repetitions.shape
    mean = repetitions.mean(0)
    se = (repetitions.std(0) / r**0.5).hypot(1e-12 * (1 + truth.abs()))  # no less than rounding
    threshold = float(stats.t.isf(ALARM / (2 * m), r - 1))
    t = (mean - truth) / se
    if not bool((t.abs() <= threshold).all()):
        worst = int(t.abs().nan_to_num(math.inf).argmax())
        raise AssertionError(
            f"{what} component {worst} of {m}: mean {mean[worst]:.7g}, expected {truth[worst]:.7g}, "
            f"t = {t[worst]:.1f}, threshold {threshold:.1f}"
        )
    return threshold * se / truth.abs()


def check_rare(name: str, estimator: Estimator, logits: Sites, seed: int = 0) -> float:
    """E[loss], E[weight.grad] and E[grads] by integration against enumeration; returns the worst resolution."""
    estimator = estimator.double().eval()
    sizes = sizes_of(logits)
    whose, sites = innermost(name, estimator, logits)
    plan = PLANS.get(whose, SMOOTH)
    example = estimator.draw(logits, seeded())
    found = integral_of(plan, whose, example, sites, seed)
    rows = found.weight.numel()
    expanded = tuple(site.expand(rows, -1) for site in logits)
    drawn = estimator.draw(expanded, seeded())
    shapes = [[(leaf.shape, leaf.dtype) for leaf in pytree.tree_leaves(of)] for of in (found.noise, drawn)]
    assert shapes[0] == shapes[1], f"the noise of {name} is laid out in another way than its draw(); {HOW}"

    if plan.coupled:
        assert_a_sum(estimator, expanded, sites, found.noise, name)
    total = torch.zeros(())
    for noise, share in every_choice(found.noise, whose, sites):
        objective = Joint(sizes, (rows,))
        loss, grads = estimator.estimate(objective, expanded, noise)
        assert objective.weight.grad is not None, "the weights got no gradient"
        values = torch.cat([loss.unsqueeze(-1), objective.weight.grad.unsqueeze(-1), *grads], -1)
        assert bool(torch.isfinite(values).all())
        total = total + share * found.of(values, plan.repetitions)
    single = Joint(sizes)
    value, slopes = enumerate_expectation(single, logits)
    truth = torch.cat([value.view(1), enumerate_weight_gradient(single, logits).view(1), *slopes])
    return float(compare(total, truth, f"{name}: (loss, weight, logits)").max())


def winners_of(u: Tensor, phi: Tensor) -> Tensor:
    return (phi - torch.log(-torch.log(u))).argmax(-1)


def assert_a_sum(estimator: Estimator, logits: Sites, sites: Sites, noise: Any, name: str) -> None:
    """g(u, v) + g(u′, v′) = g(u, v′) + g(u′, v) where u and u′ have the same winners, on rows of all strata."""
    code = torch.zeros(len(logits[0]), dtype=torch.int64)
    for phi, u in zip(sites, noise.u, strict=True):
        for winner in winners_of(u, phi).reshape(-1, len(code)):
            code = code * len(phi) + winner
    perm = torch.randperm(len(code), generator=seeded())[:20_000]
    perm = perm[code[perm].argsort(stable=True)]  # rows of equal winners, in random order
    same = code[perm] == code[perm.roll(1)]
    one, other = perm[same], perm.roll(1)[same]

    def values(u: Tensor, v: Tensor) -> Tensor:
        mixed = noise._replace(u=tuple(x[..., u, :] for x in noise.u), v=tuple(x[..., v, :] for x in noise.v))
        objective = Joint(sizes_of(logits), (len(u),))
        loss, grads = estimator.estimate(objective, tuple(phi[u] for phi in logits), mixed)
        return torch.cat([loss.unsqueeze(-1), objective.weight.grad.unsqueeze(-1), *grads], -1)

    gap = values(one, one) + values(other, other) - values(one, other) - values(other, one)
    assert float(gap.abs().max()) < 1e-10, f"given the winners, {name} is no function of u plus one of v; {HOW}"


def every_choice(noise: Any, name: str, logits: Sites) -> list[tuple[Any, float]]:
    """Noise with every value of an index that all rows share, and its probability."""
    leaves, spec = pytree.tree_flatten(noise)
    whole = [i for i, leaf in enumerate(leaves) if not leaf.is_floating_point()]
    if not whole:
        return [(noise, 1.0)]
    if name != "arsm" or len(whole) != 1:
        pytest.fail(f"the noise of {name} has integers of unknown distribution; enumerate them in every_choice")
    k = max(sizes_of(logits))
    return [
        (pytree.tree_unflatten([torch.tensor(j) if i in whole else x for i, x in enumerate(leaves)], spec), 1 / k)
        for j in range(k)
    ]
