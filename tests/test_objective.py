"""A minibatch as an objective, against single evaluations of the network and against the formulas.

The network is in float64, so that equal means equal to 1e-10; only the estimates of a mean are compared by z-scores.
"""

import copy
import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from oracles import check_means, count_passes_of, fake_mode, randomise
from torch import Tensor, nn

import estimators
from estimators.noise import one_hot
from estimators.objective import adapt
from vmo.config import WideResNetConfig
from vmo.masks import prefix_mask
from vmo.objective import MinibatchObjective
from vmo.space import TASKS, Sites, Space
from vmo.wrn import WideResNet

CONFIG = WideResNetConfig(10, 1, 10, 3, heads="all")
BATCH = 12


def make_network(dtype: torch.dtype = torch.float64, train: bool = True) -> WideResNet:
    torch.manual_seed(1)
    network = WideResNet(CONFIG).train(train)
    if dtype != torch.float32:  # a conversion to the same type fails on tensors without values
        network.to(dtype)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return network


def make_objective(
    task: str,
    precision: torch.dtype = torch.float64,
    *,
    step: int = 8,
    train: bool = True,
    size: int = 8,
    **options: object,
) -> MinibatchObjective:
    """On a network of its own."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(BATCH, 3, size, size, generator=generator, dtype=torch.float64).to(precision)
    labels = torch.randint(10, (BATCH,), generator=generator)
    space = Space(task, CONFIG.widths, step)
    return MinibatchObjective(make_network(precision, train), space, images, labels, **options)  # type: ignore[arg-type]


def random_index(space: Space, lead: tuple[int, ...] = (), seed: int = 3) -> Sites:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(k, lead, generator=generator) for k in space.sizes)


def random_sample(space: Space, lead: tuple[int, ...] = (), seed: int = 3, dtype: torch.dtype = torch.float64) -> Sites:
    """Soft, and leaves."""
    generator = torch.Generator().manual_seed(seed)
    noise = (torch.randn(*lead, k, generator=generator, dtype=torch.float64) for k in space.sizes)
    return tuple(torch.softmax(site, -1).to(dtype).requires_grad_() for site in noise)


def as_sample(space: Space, index: Sites) -> Sites:
    return tuple(one_hot(i, k, torch.float64) for i, k in zip(index, space.sizes, strict=True))


def weight_gradients(objective: MinibatchObjective, loss: Tensor) -> list[Tensor]:
    """Of a fixed combination of the losses."""
    cotangent = torch.linspace(1, 2, loss.numel(), dtype=loss.dtype).view(loss.shape)
    weights = list(objective.network.parameters())
    return list(torch.autograd.grad(loss, weights, cotangent, retain_graph=True, materialize_grads=True))


def assert_equal(got: Tensor | list[Tensor], expected: Tensor | list[Tensor]) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def running(network: WideResNet) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items() if "running" in name}


def count_passes(module: nn.Module, call: Callable[[], object]) -> int:
    calls: list[int] = []
    handle = module.register_forward_pre_hook(lambda *_: calls.append(1))
    call()
    handle.remove()
    return len(calls)


# --- hard and soft --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("lead", [(), (3,)], ids=["single", "lead"])
@pytest.mark.parametrize("task", TASKS)
def test_hard_equals_the_one_hot_sample(task: str, lead: tuple[int, ...], train: bool) -> None:
    """Sliced or masked, in value and in weight gradients."""
    objective = make_objective(task, train=train)
    masked = MinibatchObjective(objective.network, objective.space, objective.images, objective.labels, slicing=False)
    for seed in range(3):
        index = random_index(objective.space, lead, seed)
        expected = objective(as_sample(objective.space, index))
        assert expected.shape == lead
        for got in (objective.hard(index), masked.hard(index)):
            assert_equal(got, expected)
            assert_equal(weight_gradients(objective, got), weight_gradients(objective, expected))


@pytest.mark.parametrize(
    ("task", "index", "blocks"), [("depth", (1,), 2), ("width", (0, 0, 0), 3), ("joint", (0, 0, 0, 0), 1)]
)
def test_slicing_runs_only_what_the_sample_keeps(task: str, index: tuple[int, ...], blocks: int) -> None:
    """The running statistics of everything else stay: later blocks, other heads, closed channels."""
    objective = make_objective(task)
    before = running(objective.network)
    objective.hard(tuple(torch.tensor(i) for i in index))
    after = running(objective.network)
    moved = {tuple(name.split(".")[:2]) for name in after if not torch.equal(after[name], before[name])}
    assert moved == {("heads", str(blocks - 1)), *(("blocks", str(i)) for i in range(blocks))}
    if task != "depth":
        changed = after["blocks.0.bn2.running_mean"] != before["blocks.0.bn2.running_mean"]
        assert changed.tolist() == [True] * 8 + [False] * 8


def test_the_soft_depth_mixes_logits() -> None:
    """Eq. 5: ẑ = Σ_i x_i z_i, and not a mixture of losses or of probabilities."""
    objective = make_objective("depth")
    (x,) = random_sample(objective.space)
    heads = objective.network(objective.images, every_head=True, momentum=None)
    mixed = sum(x[i] * heads[i] for i in range(3))
    assert_equal(objective((x,)), F.cross_entropy(mixed, objective.labels))
    losses = torch.stack([F.cross_entropy(z, objective.labels) for z in heads])
    assert (x @ losses).item() != pytest.approx(objective((x,)).item(), rel=1e-3)


def test_the_soft_width_is_eq_6_on_every_block() -> None:
    objective = make_objective("joint")
    x = random_sample(objective.space)
    masks = [prefix_mask(site, 8) for site in x[1:]]
    heads = objective.network(objective.images, masks=masks, every_head=True, momentum=None)
    expected = F.cross_entropy(torch.einsum("d,dbc->bc", x[0], heads), objective.labels)
    assert_equal(objective(x), expected)
    assert_equal(list(torch.autograd.grad(objective(x), x)), list(torch.autograd.grad(expected, x)))


# --- leading dimensions ---------------------------------------------------------------------------------------------

LEADS = [((3,), (3,)), ((3,), (1,)), ((3,), ()), ((2, 1), (3,)), ((3,), (2, 1)), ((2, 3), (3,)), ((2, 1, 3), (4, 1))]


@pytest.mark.parametrize(("depth", "width"), LEADS)
def test_leading_dimensions_broadcast(depth: tuple[int, ...], width: tuple[int, ...]) -> None:
    """Soft and hard, equal to a loop of single evaluations; one pass of the network for each leading width, and on
    slices one of its first block for all."""
    objective = make_objective("joint")
    space, full = objective.space, torch.broadcast_shapes(depth, width)

    def sites(kind: Callable[..., Sites]) -> Sites:
        return kind(space, depth, 5)[:1] + kind(space, width, 6)[1:]

    for hard in (False, True):
        given = sites(random_index if hard else random_sample)
        tail = (slice(None),) * (not hard)
        call = objective.hard if hard else objective
        spread = [site.expand(*full, *(() if hard else site.shape[-1:])) for site in given]
        got = call(given)
        assert got.shape == full
        positions = itertools.product(*map(range, full))
        singles = [call(tuple(s[(*p, *tail)] for s in spread)) for p in positions]
        expected = torch.stack(singles).view(full)
        assert_equal(got, expected)
        assert_equal(weight_gradients(objective, got), weight_gradients(objective, expected))
        if not hard:
            slopes = (torch.autograd.grad(loss.square().sum(), given) for loss in (got, expected))
            assert_equal(*map(list, slopes))
        passes: list[int] = []
        count_passes_of(objective.network.blocks[0], lambda passes=passes: passes.append(1))
        call(given)
        assert len(passes) == (1 if hard else torch.Size(width).numel())


def test_every_depth_in_one_pass() -> None:
    """The exact sum over depth: one site (B, B) beside width sites (1, K)."""
    objective = make_objective("joint")
    widths = random_sample(objective.space)[1:]
    sample = (torch.eye(3, dtype=torch.float64), *(site.unsqueeze(0) for site in widths))
    losses = objective(sample)
    heads = objective.network(
        objective.images, masks=[prefix_mask(s, 8) for s in widths], every_head=True, momentum=None
    )
    assert_equal(losses, torch.stack([F.cross_entropy(z, objective.labels) for z in heads]))
    assert count_passes(objective.network, lambda: objective(sample)) == 1


# --- running statistics ---------------------------------------------------------------------------------------------


def statistics_of(objective: MinibatchObjective, sample: Sites) -> dict[str, Tensor]:
    """What BN measures in one single evaluation."""
    network = copy.deepcopy(objective.network)
    alone = MinibatchObjective(network, objective.space, objective.images, objective.labels)
    alone.momentum = 1.0
    alone(sample)
    return running(network)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_call_moves_running_statistics_once_by_the_mean_over_samples(n: int) -> None:
    """(1 − m) old + m · mean, with m = 0.1, in whatever order the samples come."""
    objective = make_objective("width")
    sample = random_sample(objective.space, (n,))
    before = running(objective.network)
    each = [statistics_of(objective, tuple(site[i] for site in sample)) for i in range(n)]
    objective(sample)
    for name, value in running(objective.network).items():
        mean = torch.stack([one[name] for one in each]).mean(0)
        assert_equal(value, 0.9 * before[name] + 0.1 * mean)


def test_depths_that_share_a_pass_move_running_statistics_like_one() -> None:
    one, many = make_objective("depth"), make_objective("depth")
    one((random_sample(one.space)[0],))
    many(random_sample(many.space, (4,)))
    assert_equal(list(running(one.network).values()), list(running(many.network).values()))


def test_eval_mode_moves_nothing() -> None:
    objective = make_objective("joint", train=False)
    before = running(objective.network)
    objective(random_sample(objective.space))
    objective.hard(random_index(objective.space))
    objective.control(random_sample(objective.space))
    assert all(torch.equal(value, before[name]) for name, value in running(objective.network).items())


# --- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (2,)], ids=["single", "lead"])
@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("task", TASKS)
def test_groups_are_objectives_of_their_own(task: str, groups: int, lead: tuple[int, ...]) -> None:
    """Row s is the objective on the s-th part alone, divided by S; BN statistics are those of the part."""
    objective = make_objective(task, groups=groups)
    space, n = objective.space, BATCH // groups
    parts = [
        MinibatchObjective(
            objective.network, space, objective.images[s * n : (s + 1) * n], objective.labels[s * n : (s + 1) * n]
        )
        for s in range(groups)
    ]
    index, sample = random_index(space, (*lead, groups)), random_sample(space, (*lead, groups))
    for got, expected in (
        (objective.hard(index), [part.hard(tuple(i[..., s] for i in index)) for s, part in enumerate(parts)]),
        (objective(sample), [part(tuple(x[..., s, :] for x in sample)) for s, part in enumerate(parts)]),
        (
            objective.control(sample),
            [part.control(tuple(x[..., s, :] for x in sample)) for s, part in enumerate(parts)],
        ),
    ):
        assert got.shape == (*lead, groups)
        assert_equal(got, torch.stack(expected, -1) / groups)


def test_groups_move_running_statistics_by_the_mean_over_groups() -> None:
    objective = make_objective("width", groups=3)
    before, sample = running(objective.network), random_sample(objective.space, (3,))
    each = []
    for s in range(3):
        images, labels = (t[4 * s : 4 * s + 4] for t in (objective.images, objective.labels))
        part = MinibatchObjective(objective.network, objective.space, images, labels)
        each.append(statistics_of(part, tuple(site[s] for site in sample)))
    objective(sample)
    for name, value in running(objective.network).items():
        assert_equal(value, 0.9 * before[name] + 0.1 * torch.stack([one[name] for one in each]).mean(0))


@pytest.mark.parametrize("groups", [0, -1, 5])
def test_groups_that_cannot_be(groups: int) -> None:
    with pytest.raises(ValueError, match=f"groups must divide the minibatch of {BATCH} images, got {groups}"):
        make_objective("width", groups=groups)


# --- a sample and others like it --------------------------------------------------------------------------------------


def some_others(index: Sites, sizes: Sequence[int]) -> Sites:
    """`(6, *rows)` per site: the sample itself, each of whose sites is changed in turn, and one all of whose are."""
    found = []
    for site, (i, size) in enumerate(zip(index, sizes, strict=True)):
        others = i.expand(6, *i.shape).clone()
        others[1 + site % 4] = (others[1 + site % 4] + 1) % size
        others[5] = (others[5] + 1) % size
        found.append(others)
    return tuple(found)


@pytest.mark.parametrize("slicing", [True, False], ids=["sliced", "masked"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_around_is_hard_at_the_sample_and_the_mere_values_of_others(
    task: str, groups: int, train: bool, slicing: bool
) -> None:
    alone, both = (make_objective(task, groups=groups, train=train) for _ in range(2))
    alone.slicing = both.slicing = slicing
    rows = (groups,) if groups > 1 else ()
    index = random_index(alone.space, rows)
    others = some_others(index, alone.space.sizes)
    with torch.no_grad():
        expected = copy.deepcopy(alone).hard(others)
    loss, values = both.around(index, others)
    assert_equal(values, expected)
    assert not values.requires_grad
    own = alone.hard(index)
    assert_equal(loss, own)
    for one in (loss, own):
        one.sum().backward()
    moved = [running(one.network) for one in (alone, both)]
    assert all(torch.equal(moved[0][name], moved[1][name]) for name in moved[0])
    for mine, right in zip(both.network.parameters(), alone.network.parameters(), strict=True):
        assert (mine.grad is None) == (right.grad is None)
        if mine.grad is not None:
            assert_equal(mine.grad, right.grad)


def test_around_takes_up_only_what_differs() -> None:
    """Nothing for the sample itself; for another the blocks from the first that differs on, and each way once, whatever
    widths a block is to have there."""
    objective = make_objective("width")
    index = random_index(objective.space)
    others = some_others(index, objective.space.sizes)
    calls: list[int] = []
    for i, block in enumerate(objective.network.blocks):
        count_passes_of(block, lambda i=i: calls.append(i))
    objective.around(index, tuple(torch.cat([site, site]) for site in others))
    sample, first, second, third = [0, 1, 2], [0, 1, 2], [1, 2], [2]
    every = [2]  # where all sites differ; its first block is that of `first`, and so is the pass of its second
    assert sorted(calls) == sorted([*sample, *first, *second, *third, *every])
    for one in range(4):
        calls.clear()
        other = [(site + (i == one)) % k for i, (site, k) in enumerate(zip(index, objective.space.sizes, strict=True))]
        objective.around(index, tuple(site.unsqueeze(0) for site in other))
        assert calls == [*sample, *range(one, 3)]


def test_around_several_samples_is_on_slices_too() -> None:
    """Of samples with leading dimensions there is no one base; they are on slices all the same."""
    one, other = make_objective("width"), make_objective("width")
    index = random_index(one.space, (2,))
    others = tuple(site.unsqueeze(0) for site in random_index(one.space, (2,), seed=9))
    masked: list[int] = []
    for block in one.network.blocks:  # whose `forward` is for masks
        block.register_forward_hook(lambda *_: masked.append(1))
    loss, values = one.around(index, others)
    assert not masked
    assert_equal(loss, other.hard(index))
    assert all(torch.equal(value, running(other.network)[name]) for name, value in running(one.network).items())
    assert_equal(values, other.hard(others).detach())
    assert not values.requires_grad


# --- control variates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("task", TASKS)
def test_control_has_the_values_and_slopes_of_the_objective_and_touches_nothing(task: str, train: bool) -> None:
    objective = make_objective(task, train=train)
    sample = random_sample(objective.space, (2,))
    before = {name: value.clone() for name, value in objective.network.state_dict().items()}
    control = objective.control(sample)
    assert all(torch.equal(value, before[name]) for name, value in objective.network.state_dict().items())
    slopes = torch.autograd.grad(control.sum(), sample, retain_graph=True)
    control.sum().backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in objective.network.parameters())
    value = objective(sample)
    assert_equal(control, value)
    assert_equal(list(slopes), list(torch.autograd.grad(value.sum(), sample)))


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("task", TASKS)
def test_control_is_differentiable_twice(task: str, train: bool) -> None:
    """Second derivatives against differences of first ones, along one random direction at a time."""
    objective = make_objective(task, step=16, train=train)
    sample = random_sample(objective.space)
    assert torch.autograd.gradcheck(lambda *x: objective.control(x), sample, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *x: objective.control(x), sample, fast_mode=True)


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
def test_parts_cover_the_minibatch(n: int) -> None:
    objective = make_objective("width", slicing=False)
    sample, size = random_sample(objective.space), BATCH // n
    for i in range(n):
        part = objective.part(i, n)
        assert part is not None and not part.slicing and part.network is objective.network
        images, labels = (t[i * size : (i + 1) * size] for t in (objective.images, objective.labels))
        assert_equal(part(sample), MinibatchObjective(objective.network, objective.space, images, labels)(sample))


def test_there_is_no_part_where_parts_would_not_be_equal() -> None:
    assert make_objective("width").part(0, 5) is None
    assert make_objective("width", groups=2).part(0, 2) is None


# --- other ways to run it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_it_runs_on_tensors_without_values(task: str) -> None:
    with fake_mode():
        objective = make_objective(task, torch.float32)
        assert not objective.slicing
        index = tuple(torch.zeros(2, dtype=torch.int64) for _ in objective.space.sizes)
        sample = tuple(torch.rand(2, k, requires_grad=True) for k in objective.space.sizes)
        for loss in (objective(sample), objective.hard(index), objective.control(sample)):
            assert loss.shape == (2,)
            loss.sum().backward()
        assert all(site.grad is not None for site in sample)
        weights = objective.network.named_parameters()
        unused = ("heads.0.", "heads.1.") if task == "width" else ()
        assert all((p.grad is None) == name.startswith(unused) for name, p in weights)


@pytest.mark.parametrize("task", TASKS)
def test_bfloat16_is_close_to_single_precision(task: str) -> None:
    """Losses come out in float32 and agree to 2 %, eight bits of mantissa; gate gradients point the same way."""
    single, half = make_objective(task, torch.float32), make_objective(task, torch.float32, dtype=torch.bfloat16)
    sample = random_sample(single.space, dtype=torch.float32)
    index = random_index(single.space)
    slopes = []
    for objective in (single, half):
        loss = objective(sample)
        assert loss.dtype == torch.float32
        slopes.append(torch.cat(torch.autograd.grad(loss, sample)).double())
    assert float(F.cosine_similarity(*slopes, dim=0)) > 0.95
    for name in ("__call__", "hard", "control"):
        sites = index if name == "hard" else sample
        expected, got = (getattr(objective, name)(sites) for objective in (single, half))
        torch.testing.assert_close(got, expected, rtol=0.02, atol=0)
        assert not torch.equal(got, expected)


# --- estimators on a network ----------------------------------------------------------------------------------------


def estimates(estimator: estimators.Estimator, objective: MinibatchObjective, logits: Sites, n: int) -> Tensor:
    """n estimates `(n, 1 + logits + biases)`: the loss, its gradient in the logits, and that of the heads' biases."""
    generator = torch.Generator().manual_seed(7)
    own = adapt(objective, objective.space.sizes, logits[0].dtype)
    rows = []
    for _ in range(n):
        objective.network.zero_grad()
        loss, grads = estimator.estimate(own, logits, estimator.draw(logits, generator))
        biases = [head.linear.bias for head in objective.network.heads.values()]
        weights = [torch.zeros_like(b) if b.grad is None else b.grad for b in biases]
        rows.append(torch.cat([loss.view(1), *grads, *weights]).double())
    return torch.stack(rows)


def on_network(name: str, n: int, **options: object) -> None:
    """The mean of n estimates is the enumerated gradient; false alarm 1e-6 over all components."""
    objective = make_objective("joint", torch.float32, step=16, size=4)
    sizes = objective.space.sizes
    logits = tuple(torch.linspace(-0.5, 0.5, k).cos() * (i + 1) for i, k in enumerate(sizes))
    (truth,) = estimates(estimators.get("exact", sizes=sizes).eval(), objective, logits, 1)
    estimator = estimators.get(name, sizes=sizes, **options)
    check_means(estimates(randomise(estimator).eval(), objective, logits, n), truth, name)


@pytest.mark.parametrize(("name", "n"), [("rloo", 400), ("rebar", 150), ("relax", 250)])
def test_unbiased_through_the_network(name: str, n: int) -> None:
    on_network(name, n)


def test_the_check_of_bias_through_the_network_finds_one() -> None:
    with pytest.raises(AssertionError, match="concrete component"):
        on_network("concrete", 100, temperature=1.0)


@pytest.mark.parametrize("of", ["rloo", "concrete", "straight_through"])
def test_depth_enumerated_beside_sampled_widths_costs_one_pass_per_sample(of: str) -> None:
    """All depths come from the one pass of each sample of the widths, and the estimate is that of separate depths."""
    objective = make_objective("joint")
    sizes = objective.space.sizes
    estimator = estimators.get("partly_exact", sizes=sizes, of=of)
    logits = tuple(torch.linspace(-0.5, 0.5, size, dtype=torch.float64) for size in sizes)
    noise = estimator.draw(logits, torch.Generator().manual_seed(0))
    calls: list[int] = []
    for block in objective.network.blocks:
        count_passes_of(block, lambda: calls.append(1))
    loss, grads = estimator.estimate(objective, logits, noise)
    assert 0 < len(calls) <= len(objective.network.blocks) * estimator.evaluations // sizes[0]

    fresh = make_objective("joint")

    def one_depth(d: int) -> Tensor:
        inner = estimators.get(of, sizes=sizes[1:])

        def f(sample: Sites) -> Tensor:
            depth = one_hot(torch.tensor(d), sizes[0], torch.float64)
            return fresh((depth.expand(*sample[0].shape[:-1], -1), *sample))

        return inner.estimate(f, logits[1:], noise).loss

    each = torch.stack([one_depth(d) for d in range(sizes[0])])
    p = torch.softmax(logits[0], -1)
    torch.testing.assert_close(loss, (p * each).sum(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(grads[0], p * (each - (p * each).sum()), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_a_relaxed_pass_reaches_the_logits_as_multiplication_does_where_masks_underflow(train: bool) -> None:
    """In a relaxed pass a mask is folded into BN, where it has no slope at 0; the logits' gradient does not need it."""
    objective = make_objective("width", train=train)
    spread = []
    for size in objective.space.sizes:  # likely widths, and the last out of reach
        site = -torch.arange(size, dtype=torch.float64)
        site[-1] = -900.0
        spread.append(site)
    gradients = []
    for evaluate in (objective.control, objective):
        z = [site.clone().requires_grad_() for site in spread]
        sample = tuple(torch.softmax(site, -1) for site in z)
        assert all(bool((site == 0).any()) for site in sample)
        gradients.append(torch.autograd.grad(evaluate(sample).sum(), z))
        assert max(float(g.abs().max()) for g in gradients[-1]) > 1e-4
    assert_equal(list(gradients[0]), list(gradients[1]))


def test_parts_together_move_the_running_statistics_as_one_pass() -> None:
    """Towards statistics that are the same: (1 − m)^n of what was there is left of n parts as of one pass."""
    left = []
    for n in (1, 3):
        objective = make_objective("width", train=True)
        bn = objective.network.blocks[0].bn1
        bn.running_mean.fill_(1e6)  # beside which those of the images are nothing
        index = tuple(torch.tensor(size - 1) for size in objective.space.sizes)
        for i in range(n):
            piece = objective.part(i, n)
            assert piece is not None
            piece.hard(index)
        left.append(bn.running_mean.clone())
    torch.testing.assert_close(left[1], left[0], rtol=1e-5, atol=0)


def test_heads_that_are_made_again_move_the_running_statistics_once() -> None:
    objective = make_objective("depth", train=True)
    sample = random_sample(objective.space, (2,))
    value = objective(sample)
    before = {name: kept.clone() for name, kept in objective.network.state_dict().items()}
    value.sum().backward()
    assert all(torch.equal(kept, before[name]) for name, kept in objective.network.state_dict().items())
