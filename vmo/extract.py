"""From a sampled architecture to a plain compact network."""

from __future__ import annotations

from dataclasses import replace

import torch

from vmo.space import Architecture
from vmo.wrn import WideResNet


@torch.no_grad()
def extract(network: WideResNet, architecture: Architecture) -> WideResNet:
    """The network that `architecture` keeps: its first blocks, the first hidden channels of each, and one head.

    Its logits equal those of the gated network under the hard sample, up to the order of summation. It is a copy: no
    storage is shared.
    """
    d, hidden = architecture.blocks, architecture.hidden
    like = next(network.parameters())
    with torch.device("meta"):  # skips the initialisation, because all values are overwritten below
        compact = WideResNet(replace(network.config, hidden=hidden, blocks=d, heads="last")).to(like.dtype)
    compact.to_empty(device=like.device).train(network.training)
    # every tensor of the compact network is the leading corner of the tensor of the same name
    source = network.state_dict()
    for name, target in compact.state_dict().items():
        target.copy_(source[name][tuple(slice(n) for n in target.shape)] if target.dim() else source[name])
    return compact


def parameters(network: WideResNet) -> int:
    """Number of trainable parameters (scalars)."""
    return sum(parameter.numel() for parameter in network.parameters())
