"""Structured output prediction: the lower half of a digit from its upper half, by two layers of binary variables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import estimators
from estimators import Estimator
from estimators.objective import Sites
from suites.scripts.published import images
from suites.scripts.published.experiment import Arm, Asked, Experiment, Number, make

HALF, UNITS = 392, 200
BATCH = 100
LEARNING_RATE = 3e-3
TESTED, SAMPLES, CHUNK = 1000, 1000, 20  # test images, samples for each, images at a time
ARMS = {
    "concrete[temperature=1.0]": 58.5,
    "straight_through": 58.9,
    "gumbel_straight_through[temperature=1.0]": 59.3,
    "muprop": 58.9,
    "reinforce": 72.0,
}


class Network(nn.Module):
    """392 inputs, two layers of 200 binary variables, 392 outputs; everything between them is linear."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.second = nn.Linear(HALF, UNITS), nn.Linear(UNITS, UNITS)
            self.last = nn.Linear(UNITS, HALF)

    def lost(self, upper: Tensor, lower: Tensor, draw: Estimator | None, noise: torch.Generator) -> Tensor:
        """−log p(lower | h) in nats, `(*rows,)`, at a sample of both layers. Without an estimator: hard samples."""
        return _lost(self.last(_drawn(self.second(_drawn(self.first(upper), draw, noise)), draw, noise)), lower)

    def surrogate(self, upper: Tensor, lower: Tensor, draw: Sequence[Estimator], noise: torch.Generator) -> Tensor:
        """−log p(lower | h) in nats, `(rows,)`, with an estimator of all variables for each layer."""

        def first(h: Sites) -> Tensor:
            return estimators.surrogate(draw[1], second, _sites(self.second(_values(h))), generator=noise)

        def second(h: Sites) -> Tensor:
            return _lost(self.last(_values(h)), lower)

        return estimators.surrogate(draw[0], first, _sites(self.first(upper)), generator=noise)


def measure(asked: Asked) -> list[float]:
    """The negative log-likelihood of test images in nats, from many samples of the hidden layers."""
    binary = torch.Generator().manual_seed(0)  # images are binarised once, the same in every run
    train, test = (torch.bernoulli(part, generator=binary) for part in images.intensities(asked.data_root))
    network = Network(asked.seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=0.9)
    noise = torch.Generator().manual_seed(asked.seed)
    one, each = make(asked.arm, (2,)), [make(asked.arm, (2,) * UNITS) for _ in range(2)]

    def loss_of(x: Tensor) -> Tensor:
        upper, lower = x.split(HALF, -1)
        if one.pathwise:
            return network.lost(upper, lower, one, noise).mean()
        return network.surrogate(upper, lower, each, noise).mean()

    images.train(asked, train, BATCH, optimizer, loss_of)
    return [likelihood(network, test[:TESTED], torch.Generator().manual_seed(asked.seed), SAMPLES)]


@torch.no_grad()
def likelihood(network: Network, tested: Tensor, noise: torch.Generator, samples: int) -> float:
    """Mean of −ln (1/m Σ p(lower | h)) over images, with m samples h from the network's own layers."""
    total = 0.0
    for x in tested.split(CHUNK):
        upper, lower = x.expand(samples, *x.shape).split(HALF, -1)
        total += float((math.log(samples) - torch.logsumexp(-network.lost(upper, lower, None, noise), 0)).sum())
    return total / len(tested)


def _drawn(logits: Tensor, draw: Estimator | None, noise: torch.Generator) -> Tensor:
    if draw is None:
        return torch.bernoulli(torch.sigmoid(logits), generator=noise)
    return estimators.sample(draw, torch.stack([torch.zeros_like(logits), logits], -1), generator=noise)[..., 1]


def _sites(logits: Tensor) -> Sites:
    """Logits of binary variables, `(*rows, units)`, as one site `(*rows, 2)` for each."""
    return torch.stack([torch.zeros_like(logits), logits], -1).unbind(-2)


def _values(sample: Sites) -> Tensor:
    """Values of the variables, `(*rows, units)`, in [0, 1]."""
    return torch.stack(tuple(sample), -2)[..., 1]


def _lost(logits: Tensor, target: Tensor) -> Tensor:
    target = target.expand_as(logits)
    return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)


EXPERIMENT = Experiment(
    name="structured",
    paper="Jang et al. 2017",
    arxiv="1611.01144",
    setting=(
        "The lower half of an MNIST digit is predicted from the upper half by 392-200-200-392 units; the 200s are "
        "binary variables. Stochastic gradient descent with momentum 0.9; temperature 1. Shown is the negative "
        "log-likelihood of test images in nats, from 1,000 samples of the hidden layers. The paper uses its own fixed "
        "binarisation, a learning rate chosen for each estimator, and all test images. It gives neither the size of a "
        "minibatch nor the number of steps, nor the baseline of the score function, which is a moving average here. "
        "Here images are binarised once at random, the learning rate is 3e-3 for all, the minibatch is 100, a full run "
        "has 800 epochs, and the first 1,000 test images are used."
    ),
    length=800,
    unit="epochs",
    arms=tuple(
        Arm(label, (Number(f"−ln p, `{label}`", value, 0.5, "Table 1, SBN (Bern.)", "paper"),))
        for label, value in ARMS.items()
    ),
    measure=measure,
    dataset=images.NAME,
    long=True,
)
