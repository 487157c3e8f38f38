"""The gated Wide ResNet, against counts of the published network and against an unfused one written out below.

`check_gates` compares the gradients with respect to the gates as well; two ways of gating that look the same, and are
wrong, must not pass it.
"""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from oracles import count_passes_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vmo.config import WideResNetConfig
from vmo.layers import Block, Head, pooled
from vmo.masks import prefix_mask
from vmo.wrn import Visits, WideResNet

SMALL = WideResNetConfig(10, 1, 10, 3, heads="all")
DEEPER = WideResNetConfig(16, 2, 7, 3, heads="all")


def make(config: WideResNetConfig, train: bool) -> WideResNet:
    """In float64, with affine parameters and running statistics of BN that are not the initial ones."""
    torch.manual_seed(1)
    network = WideResNet(config).double().train(train)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network


def batch(config: WideResNetConfig, n: int = 5, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, config.channels, size, size, generator=generator, dtype=torch.float64)


def masks_of(config: WideResNetConfig, kind: str) -> list[Tensor]:
    """Leaves: "soft", strictly between 0 and 1 but for the first; "hard", ones and zeros."""
    generator = torch.Generator().manual_seed(3)
    masks = []
    for width in config.widths:
        noise = torch.randn(width, generator=generator, dtype=torch.float64)
        x = torch.softmax(noise, -1)
        if kind == "hard":
            x = torch.eye(width, dtype=torch.float64)[int(torch.randint(1, width - 1, (), generator=generator))]
        masks.append(prefix_mask(x).requires_grad_())
    return masks


def unfused(network: WideResNet, images: Tensor, masks: list[Tensor] | None) -> Tensor:
    """All heads' logits by the book: the gates multiply the hidden activations."""

    def bn_relu(bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
        if bn.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        else:
            assert bn.running_mean is not None and bn.running_var is not None
            mean, var = bn.running_mean, bn.running_var
        mean, var, gamma, beta = (t.view(1, -1, 1, 1) for t in (mean, var, bn.weight, bn.bias))
        return ((x - mean) / (var + bn.eps).sqrt() * gamma + beta).relu()

    x = F.conv2d(images, network.stem.weight, padding=1)
    logits, inputs = [], 16
    for i, block in enumerate(network.blocks):
        outputs, stride = network.config.outputs[i], network.config.strides[i]
        a = bn_relu(block.bn1, x)
        h = bn_relu(block.bn2, F.conv2d(a, block.conv1.weight, stride=stride, padding=1))
        if masks is not None:
            h = h * masks[i].view(1, -1, 1, 1)
        if inputs != outputs or stride != 1:
            x = F.conv2d(a, block.shortcut.weight, stride=stride)  # of the activation after BN and ReLU
        x = x + F.conv2d(h, block.conv2.weight, padding=1)
        head = network.heads[str(i)]
        logits.append(bn_relu(head.bn, x).mean((2, 3)) @ head.linear.weight.T + head.linear.bias)
        inputs = outputs
    return torch.stack(logits)


def gradients(logits: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    """Of one fixed random combination of the logits."""
    cotangent = torch.randn(logits.shape, generator=torch.Generator().manual_seed(4), dtype=logits.dtype)
    return list(torch.autograd.grad(logits, wanted, cotangent, retain_graph=True, materialize_grads=True))


def distance(got: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of a tensor, relative to the size of the largest entry of that tensor."""
    pairs = zip(got, expected, strict=True)
    return max(float((one - other).detach().abs().max() / other.detach().abs().max()) for one, other in pairs)


def check_gates(config: WideResNetConfig, kind: str, train: bool, tolerance: float = 1e-10) -> None:
    """Value, weight gradients and gate gradients equal those of plain multiplication, in float64."""
    network, images, masks = make(config, train), batch(config), masks_of(config, kind)
    got = network(images, masks=masks, every_head=True, momentum=None)
    expected = unfused(network, images, masks)
    assert distance([got], [expected]) < tolerance, "value"
    weights = list(network.parameters())
    assert distance(gradients(got, weights), gradients(expected, weights)) < tolerance, "weight gradients"
    assert distance(gradients(got, masks), gradients(expected, masks)) < tolerance, "gate gradients"


# --- counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "widen", "classes", "expected"),
    [
        (16, 1, 10, 175_066),
        (28, 10, 10, 36_479_194),
        (28, 10, 100, 36_536_884),
        (40, 4, 10, 8_949_210),
    ],
)
def test_published_parameter_counts(depth: int, widen: int, classes: int, expected: int) -> None:
    config = WideResNetConfig(depth, widen, classes)
    with torch.device("meta"):
        network = WideResNet(config)
    assert sum(p.numel() for p in network.parameters()) == expected
    rest, fixed, slope = config.parameters()
    assert rest + sum(fixed) + sum(s * k for s, k in zip(slope, config.widths, strict=True)) == expected


def test_the_last_block_holds_a_fifth_of_the_parameters() -> None:
    config = WideResNetConfig(28, 10)
    _, fixed, slope = config.parameters()
    assert fixed[-1] + slope[-1] * config.widths[-1] == 7_375_360


def test_macs_of_the_paper() -> None:
    config = WideResNetConfig(28, 10)
    assert config.total_macs(32) == pytest.approx(5.243e9, rel=1e-4)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        WideResNet(config)(torch.empty(1, 3, 32, 32))
    assert config.total_macs(32) == counter.get_total_flops() // 2


@pytest.mark.parametrize("size", [8, 9, 32])
@pytest.mark.parametrize(
    "config",
    [
        WideResNetConfig(10, 1),
        WideResNetConfig(16, 2, 100, 1),
        WideResNetConfig(16, 2, hidden=(3, 5, 8, 9, 2), blocks=5),
    ],
)
def test_macs_and_parameters_of_a_config(config: WideResNetConfig, size: int) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = WideResNet(config)
        network(torch.empty(1, config.channels, size, size))
    assert config.total_macs(size) == counter.get_total_flops() // 2
    rest, fixed, slope = config.parameters()
    counted = sum(p.numel() for p in network.parameters())
    assert rest + sum(fixed) + sum(s * k for s, k in zip(slope, config.widths, strict=True)) == counted


def test_layout_of_the_blocks() -> None:
    config = WideResNetConfig(28, 10)
    assert config.outputs == config.widths == (160,) * 4 + (320,) * 4 + (640,) * 4
    assert config.strides == (1, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1)
    with torch.device("meta"):
        network = WideResNet(config)
        sizes: list[torch.Size] = []
        for block in network.blocks:
            block.register_forward_hook(lambda _module, _args, output: sizes.append(output.shape))
        assert network(torch.empty(2, 3, 32, 32)).shape == (2, 10)
    areas = [32] * 4 + [16] * 4 + [8] * 4
    assert sizes == [(2, k, a, a) for k, a in zip(config.outputs, areas, strict=True)]
    projecting = [i for i, block in enumerate(network.blocks) if block.shortcut is not None]
    assert projecting == [0, 4, 8]
    assert all(block.conv1.stride[0] == s for block, s in zip(network.blocks, config.strides, strict=True))
    assert all(block.conv2.stride == (1, 1) for block in network.blocks)
    assert not any(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d))


def test_initial_weights_are_he_normal() -> None:
    """sd = √(2 / fan-in); 4,000 and more weights to a convolution, so 5 standard errors are at most 6 %."""
    torch.manual_seed(0)
    network = WideResNet(WideResNetConfig(16, 4, heads="all"))
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and (n := module.weight.numel()) > 4_000:
            fan_in = math.prod(module.weight.shape[1:])
            standard = module.weight.detach() * math.sqrt(fan_in / 2)
            assert float(standard.std()) == pytest.approx(1, abs=5 / math.sqrt(2 * n))
            assert float(standard.pow(4).mean()) == pytest.approx(3, abs=5 * math.sqrt(96 / n))
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
        elif isinstance(module, Head):
            assert (module.linear.bias == 0).all()
            assert module.linear.weight.std() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 15}, r"6n \+ 4 layers"),
        ({"depth": 4}, r"6n \+ 4 layers"),
        ({"widen": 0}, "must be positive"),
        ({"classes": 0}, "must be positive"),
        ({"channels": 0}, "must be positive"),
        ({"blocks": 0}, r"blocks must lie in 1 … 6, got 0"),
        ({"blocks": 7}, "blocks must lie in"),
        ({"hidden": (4, 4)}, "for each of 6 blocks"),
        ({"hidden": (4, 4), "blocks": 3}, "for each of 3 blocks"),
        ({"hidden": (4, 4, 0), "blocks": 3}, "a positive width"),
        ({"heads": "none"}, "heads must be 'last' or 'all'"),
    ],
)
def test_configs_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WideResNetConfig(**arguments)  # type: ignore[arg-type]


# --- gates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("config", [SMALL, DEEPER], ids=["10-1", "16-2"])
def test_without_gates_it_is_the_network_of_the_book(config: WideResNetConfig, train: bool) -> None:
    network, images = make(config, train), batch(config)
    got, expected = network(images, every_head=True, momentum=None), unfused(network, images, None)
    weights = list(network.parameters())
    assert distance([got], [expected]) < 1e-10
    assert distance(gradients(got, weights), gradients(expected, weights)) < 1e-10


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("config", [SMALL, DEEPER], ids=["10-1", "16-2"])
def test_gates_multiply_the_hidden_activations(config: WideResNetConfig, kind: str, train: bool) -> None:
    check_gates(config, kind, train)


def folded_into_bn(self: Block, x: Tensor, mask: Tensor, momentum: None, relaxed: bool) -> Tensor:
    """The mask scales γ and β of the second BN. As a value, the same: relu(m y) = m relu(y) for m ≥ 0."""
    a = F.relu(_bn(self.bn1, x))
    h = F.relu(_bn(self.bn2, self.conv1(a)) * mask.view(1, -1, 1, 1))
    return (x if self.shortcut is None else self.shortcut(a)) + self.conv2(h)


def before_bn(self: Block, x: Tensor, mask: Tensor, momentum: None, relaxed: bool) -> Tensor:
    """The mask scales what goes into the second BN, which divides it out again."""
    a = F.relu(_bn(self.bn1, x))
    h = F.relu(_bn(self.bn2, self.conv1(a) * mask.view(1, -1, 1, 1)))
    return (x if self.shortcut is None else self.shortcut(a)) + self.conv2(h)


def _bn(bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, var = (None, None) if bn.training else (bn.running_mean, bn.running_var)
    return F.batch_norm(x, mean, var, bn.weight, bn.bias, bn.training, 0.0, bn.eps)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_planted_mask_in_the_affine_parameters_of_bn(monkeypatch: pytest.MonkeyPatch, train: bool) -> None:
    """Right at a soft sample, and blind to closed channels at a hard one, since relu'(0) = 0."""
    monkeypatch.setattr(Block, "forward", folded_into_bn)
    check_gates(SMALL, "soft", train)
    with pytest.raises(AssertionError, match="gate gradients"):
        check_gates(SMALL, "hard", train)
    network, masks = make(SMALL, train), masks_of(SMALL, "hard")
    for mask, slope in zip(masks, gradients(network(batch(SMALL), masks=masks), masks), strict=True):
        assert (slope[mask == 0] == 0).all() and (slope[mask == 1] != 0).any()


def test_planted_mask_before_bn(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training mode hardly any of the gradient is left, the part that BN's ε does not cancel."""
    right = gradients(make(SMALL, True)(batch(SMALL), masks=(m := masks_of(SMALL, "soft"))), m)
    monkeypatch.setattr(Block, "forward", before_bn)
    with pytest.raises(AssertionError, match="value"):
        check_gates(SMALL, "soft", train=True)
    wrong = gradients(make(SMALL, True)(batch(SMALL), masks=(m := masks_of(SMALL, "soft"))), m)
    for one, other in zip(wrong, right, strict=True):
        opened = slice(0, len(one) // 2)  # further on m² is no longer large beside ε
        assert one[opened].norm() < 0.02 * other[opened].norm()


# --- slices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("widths", [(1, 1, 1), (5, 31, 12), (16, 32, 64)])
def test_a_slice_equals_the_hard_mask(widths: tuple[int, ...], train: bool) -> None:
    network, images = make(SMALL, train), batch(SMALL)
    masks = [torch.arange(full) < k for full, k in zip(SMALL.widths, widths, strict=True)]
    weights = list(network.parameters())
    (sliced,) = network.sliced(images, [widths])
    masked = network(images, masks=[m.double() for m in masks], momentum=None)
    assert distance([sliced], [masked]) < 1e-10
    for one, other in zip(gradients(sliced, weights), gradients(masked, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_slice_leaves_the_running_statistics_of_other_channels() -> None:
    sliced, masked, images, k = make(SMALL, True), make(SMALL, True), batch(SMALL), 5
    before = sliced.blocks[1].bn2.running_mean.clone()
    widths = (k,) * 3
    sliced.sliced(images, [widths], visits=Visits([widths], 0.1))
    masked(images, masks=[(torch.arange(full) < k).double() for full in SMALL.widths])
    after, reference = sliced.blocks[1].bn2.running_mean, masked.blocks[1].bn2.running_mean
    assert torch.equal(after[k:], before[k:])
    torch.testing.assert_close(after[:k], reference[:k])
    assert (reference != before).all()


TOGETHER = [(5, 31, 12), (5, 31, 64), (5, 2), (16, 31, 12), (5, 31, 12), (5,), (5, 31)]


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_networks_that_begin_alike_share_what_they_begin_with(train: bool) -> None:
    """In value and in gradient each is what it is alone, and no block is passed twice by the same way, whatever widths
    it is to have there."""
    network, images = make(SMALL, train), batch(SMALL)
    weights = list(network.parameters())
    alone = [network.sliced(images, [one])[0] for one in TOGETHER]
    calls: list[int] = []
    for i, block in enumerate(network.blocks):
        count_passes_of(block, lambda i=i: calls.append(i))
    together = network.sliced(images, TOGETHER)
    ways = [len({one[:i] for one in TOGETHER if len(one) > i}) for i in range(3)]
    assert [calls.count(i) for i in range(3)] == ways == [1, 2, 2]
    assert together[0] is together[4]
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    cotangents = [torch.full_like(one, i + 1.0) for i, one in enumerate(alone)]
    pairs = (
        torch.autograd.grad(logits, weights, cotangents, retain_graph=True, materialize_grads=True)
        for logits in (together, alone)
    )
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_a_head_keeps_nothing_where_others_go_on() -> None:
    """What all depths keep for the backward pass is hardly more than what the deepest does alone."""
    network, images = make(DEEPER, True), batch(DEEPER)

    def held(networks: list[tuple[int, ...]]) -> int:
        storages: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        own = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = network.sliced(images, networks)
        assert logits
        return sum(size for pointer, size in storages.items() if pointer not in own)

    every = [DEEPER.widths[:d] for d in range(1, 7)]
    assert held(every) < 1.02 * held(every[-1:])


@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_networks_together_move_running_statistics_by_their_mean(momentum: float) -> None:
    """(1 − m) old + m · mean over those that have the block or the head, where all of these have the channel."""
    network, images = make(SMALL, True), batch(SMALL)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    each = []
    for one in TOGETHER:
        single = copy.deepcopy(network)
        single.sliced(images, [one], visits=Visits([one], 1.0))
        each.append(single.state_dict())
    network.sliced(images, TOGETHER, visits=Visits(TOGETHER, momentum))
    for name, value in network.state_dict().items():
        if "running" not in name:
            assert torch.equal(value, before[name])
            continue
        where, number, *_ = name.split(".")
        at = int(number)
        having = [i for i, one in enumerate(TOGETHER) if (len(one) > at if where == "blocks" else len(one) == at + 1)]
        least = min(TOGETHER[i][at] for i in having) if "bn2" in name else None
        mean = torch.stack([each[i][name] for i in having]).mean(0)
        expected = (1 - momentum) * before[name] + momentum * mean
        torch.testing.assert_close(value[:least], expected[:least], rtol=1e-10, atol=1e-12)


def test_a_channel_moves_at_each_pass_whose_widest_network_has_it() -> None:
    """By the share of all networks of the pass, whichever of them have the channel itself."""
    network, images = make(SMALL, True), batch(SMALL)
    bn, networks = network.blocks[1].bn2, [(5, 9, 3), (5, 31, 3), (16, 12, 3), (16, 12, 3)]
    before = bn.running_mean.clone()
    alone = []
    for first, second in ((5, 31), (16, 12)):
        single = copy.deepcopy(network)
        one = (first, second, 3)
        single.sliced(images, [one], visits=Visits([one], 1.0))
        alone.append(single.blocks[1].bn2.running_mean)
    network.sliced(images, networks, visits=Visits(networks, 0.1))
    moved = bn.running_mean
    torch.testing.assert_close(
        moved[:12], 0.9 * before[:12] + 0.05 * (alone[0] + alone[1])[:12], rtol=1e-10, atol=1e-12
    )
    share = 0.05 / (1 - 0.05)  # of the first pass, when half of the networks are still to come
    torch.testing.assert_close(moved[12:31], before[12:31].lerp(alone[0][12:31], share), rtol=1e-10, atol=1e-12)
    assert torch.equal(moved[31:], before[31:])


def test_autocast_leaves_running_statistics_in_single_precision() -> None:
    networks = [(16, 32, 64), (16, 32, 9)]
    network = make(SMALL, True).float()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        network.sliced(batch(SMALL).float(), networks, visits=Visits(networks, 0.1))
    moved = {
        name: value
        for name, value in network.state_dict().items()
        if "running" in name and not torch.equal(value, before[name])
    }
    assert any("heads" in name for name in moved)
    assert not [name for name, value in moved.items() if torch.equal(value, value.bfloat16().float())]


def test_a_sum_over_widths_is_rounded_once() -> None:
    """In bfloat16 the widest of many widths is as near to the exact value as it is alone."""
    torch.manual_seed(0)
    block, x = Block(64, 64, 64, 1), torch.randn(2, 64, 8, 8).bfloat16()
    (exact,) = copy.deepcopy(block).double().sliced(x.double(), [64], None)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        (alone,) = block.sliced(x, [64], None)
        *_, summed = block.sliced(x, range(1, 65), None)
    assert summed.dtype == alone.dtype == torch.bfloat16
    assert (summed - exact).norm() < 1.2 * (alone - exact).norm()


def test_grey_images_and_heads_keep_the_layout_of_convolutions() -> None:
    """Channels last, forward and backward; of one channel a convolution cannot tell, and a mean forgets it."""
    grey = replace(SMALL, channels=1)
    assert make(grey, True)._stem(batch(grey)).stride(1) == 1
    x = torch.randn(3, 8, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    (slope,) = torch.autograd.grad(pooled(x).square().sum(), x)
    assert slope.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pooled(x), x.mean((2, 3)))


# --- depth ----------------------------------------------------------------------------------------------------------


def test_every_head_ends_with_the_logits_of_the_network() -> None:
    network, images = make(DEEPER, False), batch(DEEPER)
    heads = network(images, every_head=True)
    assert heads.shape == (6, 5, 7)
    assert torch.equal(heads[-1], network(images))
    for d in range(1, 7):
        assert torch.equal(heads[d - 1], network.sliced(images, [DEEPER.widths[:d]])[0])


def test_a_shallow_network_stops_at_its_head() -> None:
    network, images = make(DEEPER, True), batch(DEEPER)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    widths = DEEPER.widths[:2]
    network.sliced(images, [widths], visits=Visits([widths], 0.1))[0].sum().backward()
    for name, parameter in network.named_parameters():
        used = name.startswith(("stem", "blocks.0.", "blocks.1.", "heads.1."))
        assert (parameter.grad is not None) == used, name
    for name, value in network.state_dict().items():
        moved = name.startswith(("blocks.0.", "blocks.1.", "heads.1.")) and "running" in name
        assert (not torch.equal(value, state[name])) == moved, name


def test_only_the_last_head_by_default() -> None:
    assert list(WideResNet(WideResNetConfig(10, 1)).heads) == ["2"]
    assert list(WideResNet(WideResNetConfig(10, 1, blocks=2)).heads) == ["1"]


# --- running statistics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, 0.37, 1.0])
def test_running_statistics_follow_the_momentum(momentum: float) -> None:
    network, images = make(SMALL, True), batch(SMALL)
    bn = network.blocks[0].bn1
    mean, var = bn.running_mean.clone(), bn.running_var.clone()
    network(images, momentum=momentum)
    x = F.conv2d(images, network.stem.weight, padding=1)
    torch.testing.assert_close(bn.running_mean, (1 - momentum) * mean + momentum * x.mean((0, 2, 3)))
    torch.testing.assert_close(bn.running_var, (1 - momentum) * var + momentum * x.var((0, 2, 3)))


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_without_momentum_nothing_moves_and_the_values_stay(train: bool) -> None:
    network, images = make(SMALL, train), batch(SMALL)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    still = network(images, every_head=True, momentum=None)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(still, network(images, every_head=True), rtol=1e-12, atol=1e-12)
