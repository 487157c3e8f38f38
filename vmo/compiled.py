"""A minibatch whose network is compiled: what may go through `torch.compile`, and what may not.

Compiled is one call of the network, gates in and logits out. Noise is drawn before it, by the estimator, and a compiled
region reads no width, so samples come as masks. What a control variate evaluates runs eagerly: its tuning
differentiates twice, and a compiled region has no double backward.

A graph is made for each share that a pass has in BN's running statistics, so S of them for an estimator of S samples;
from the ninth on torch runs passes eagerly, which is slower and no less right.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from vmo.objective import MinibatchObjective
from vmo.space import Sites
from vmo.wrn import WideResNet


def compile_network(network: WideResNet) -> None:
    """Compile its calls in place; parameters, buffers and their names stay as they are."""
    network.compile(dynamic=False)  # every minibatch has the same size


class CompiledObjective(MinibatchObjective):
    """The objective of a network that `compile_network` was given; make it with `slicing=False`."""

    def __call__(self, sample: Sites, /) -> Tensor:
        with warnings.catch_warnings():  # tracing looks for a gradient of the masks, which are no leaves
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            return super().__call__(sample)

    def control(self, sample: Sites, /) -> Tensor:
        with torch.compiler.set_stance("force_eager"):
            return super().control(sample)
