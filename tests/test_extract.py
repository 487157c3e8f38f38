"""Extraction: the compact network is the gated one under the hard sample, and can be measured on its own."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vmo.config import WideResNetConfig
from vmo.data import Dataset, Split, normalise
from vmo.evaluate import evaluate, recalibrate
from vmo.extract import extract, parameters
from vmo.space import TASKS, Architecture, Space
from vmo.wrn import WideResNet

CONFIG = WideResNetConfig(10, 1, 10, 3, heads="all")


def make(config: WideResNetConfig = CONFIG, dtype: torch.dtype = torch.float64) -> WideResNet:
    """In evaluation mode, with nothing at its initial value."""
    torch.manual_seed(1)
    network = WideResNet(config).to(dtype).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def dataset(n: int, classes: int = 10) -> Dataset:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    split = Split(pixels, torch.randint(classes, (n,), generator=generator))
    return Dataset("noise", split, split, classes, (120.0, 130.0, 110.0), (60.0, 70.0, 80.0), 1, False)


@settings(max_examples=30)
@given(task=st.sampled_from(TASKS), step=st.sampled_from([1, 8]), data=st.data())
def test_logits_equal_those_of_the_gated_network(task: str, step: int, data: st.DataObject) -> None:
    """In float64, up to the order of summation."""
    space = Space(task, CONFIG.widths, step)
    architecture = space.architecture(data.draw(st.tuples(*(st.integers(0, k - 1) for k in space.sizes))))
    network = make()
    compact = extract(network, architecture)
    widths = (*architecture.hidden, *CONFIG.widths[architecture.blocks :])
    masks = [(torch.arange(full) < k).double() for full, k in zip(CONFIG.widths, widths, strict=True)]
    expected = network(images(), masks=masks, every_head=True)[architecture.blocks - 1]
    got = compact(images())
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def test_the_full_architecture_is_a_copy() -> None:
    network = make(WideResNetConfig(16, 1, 10, 3))
    compact = extract(network, Space("joint", network.config.widths).full)
    assert {name: value.tolist() for name, value in compact.state_dict().items()} == {
        name: value.tolist() for name, value in network.state_dict().items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("train", [True, False])
def test_mode_and_dtype_are_kept(train: bool, dtype: torch.dtype) -> None:
    compact = extract(make(dtype=dtype).train(train), Architecture(2, (3, 5)))
    assert all(module.training == train for module in compact.modules())
    assert {p.dtype for p in compact.parameters()} == {dtype}


def test_no_storage_is_shared() -> None:
    """Full width and depth, where a slice would be the whole tensor."""
    network = make()
    compact = extract(network, Architecture(3, CONFIG.widths))
    before, logits = copy.deepcopy(network.state_dict()), network(images())
    with torch.no_grad():
        for tensor in (*compact.parameters(), *compact.buffers()):
            tensor.zero_()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network(images()), logits)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in compact.parameters())


def test_parameters_are_counted() -> None:
    compact = extract(make(), Architecture(2, (3, 5)))
    stem, block1 = 9 * 3 * 16, 32 + 9 * 16 * 3 + 6 + 9 * 3 * 16
    block2 = 32 + 9 * 16 * 5 + 10 + 9 * 5 * 32 + 16 * 32
    assert parameters(compact) == stem + block1 + block2 + 64 + 32 * 10 + 10


# --- recalibration --------------------------------------------------------------------------------------------------


def test_recalibration_sees_every_class_where_each_stands_together() -> None:
    """Images of class c have the brightness 25 c. The mean of the stem's input is that of all classes."""
    labels = torch.arange(10).repeat_interleave(40)
    split = Split((25 * labels).to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous(), labels)
    data = replace(dataset(1), train=split)
    means = []
    order = (
        torch.arange(len(labels)).view(10, 40)[torch.randperm(10, generator=torch.Generator().manual_seed(0))].flatten()
    )
    for one in (data, replace(data, train=Split(split.images[order], labels[order]))):
        network = make(dtype=torch.float32)
        seen: list[Tensor] = []
        network.stem.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].mean()))
        recalibrate(network, one, batch_size=40, limit=5)
        means.append(float(torch.stack(seen).mean()))
    every = float(normalise(split.images, data).mean())
    assert means == pytest.approx([every, every], abs=0.2)


@pytest.mark.parametrize(("batch_size", "limit", "chunks"), [(8, 50, 3), (8, 2, 2), (7, 50, 3), (100, 50, 1)])
def test_recalibration_is_the_mean_over_minibatches(batch_size: int, limit: int, chunks: int) -> None:
    """Whatever the running statistics were; the minibatches are in order and not augmented."""
    data = dataset(20)
    network = make(dtype=torch.float32)
    weights = [p.clone() for p in network.parameters()]
    measured = []
    for part in list(data.train.images.split(batch_size))[:limit]:
        alone = copy.deepcopy(network).train()
        alone(normalise(part, data), momentum=1.0)
        measured.append(alone.state_dict())
    assert len(measured) == chunks
    shares = torch.tensor([float(len(part)) for part in data.train.images.split(batch_size)][:limit])
    shares = shares / shares.sum()
    recalibrate(network, data, batch_size, limit)
    assert not network.training
    assert all(map(torch.equal, network.parameters(), weights))
    for name, value in network.state_dict().items():
        if "running" in name and not name.startswith(("heads.0", "heads.1")):
            mean = torch.tensordot(shares, torch.stack([one[name] for one in measured]), dims=1)
            torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)
    x = torch.stack(
        [
            F.conv2d(normalise(part, data), network.stem.weight, padding=1).mean((0, 2, 3))
            for part in list(data.train.images.split(batch_size))[:limit]
        ]
    )
    torch.testing.assert_close(network.blocks[0].bn1.running_mean, shares @ x, rtol=1e-5, atol=1e-5)


# --- evaluation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_evaluation_equals_one_image_at_a_time(batch_size: int) -> None:
    data, network = dataset(23), make(dtype=torch.float32).train()  # evaluation itself turns to running statistics
    before = copy.deepcopy(network.state_dict())
    loss, accuracy = evaluate(network, data.test, data, batch_size)
    losses, hits = [], []
    for image, label in zip(data.test.images, data.test.labels, strict=True):
        pixels = (image.double() - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1)
        with torch.no_grad():
            p = copy.deepcopy(network).double().eval()(pixels.unsqueeze(0)).softmax(-1)[0]
        losses.append(-float(p[label].log()))
        hits.append(int(p.argmax()) == int(label))
    assert loss == pytest.approx(sum(losses) / 23, rel=1e-5)
    assert accuracy == sum(hits) / 23
    assert 0 < accuracy < 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
