"""The minibatch objective of a network compiled by `torch.compile`.

One call of the network is compiled: gates in, logits out. The estimator draws its noise outside. A compiled region
cannot read a width, so samples are passed as masks. Control variates evaluate the network eagerly, because tuning them
needs a double backward, which compiled regions do not support.

One graph is compiled for each value of BN's momentum, so an estimator of S samples needs S graphs. From the ninth graph
on torch runs the pass eagerly: slower, with the same result.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from vmo.objective import MinibatchObjective
from vmo.space import Sites
from vmo.wrn import WideResNet


def compile_network(network: WideResNet) -> None:
    """Compile the network's calls in place. Parameters, buffers and their names do not change."""
    network.compile(dynamic=False)  # every minibatch has the same size


class CompiledObjective(MinibatchObjective):
    """The objective of a network compiled by `compile_network`. Create it with `slicing=False`."""

    def __call__(self, sample: Sites, /) -> Tensor:
        with warnings.catch_warnings():  # tracing reads .grad of the masks, which are not leaves
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            return super().__call__(sample)

    def control(self, sample: Sites, /) -> Tensor:
        with torch.compiler.set_stance("force_eager"):
            return super().control(sample)
