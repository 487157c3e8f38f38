"""Prefix masks: a width as a vector of gates (Eq. 6 of the VMO paper).

    m_i = Σ_{j ≥ i} x_j

If x is one-hot at k, the mask is k ones followed by zeros. If x is in the simplex, it is non-increasing from 1. (The
paper's appendix sums over j ≤ i. That is a suffix mask, and a penalty on k would then *widen* the layer; see
docs/explanation/errata.md.)
"""

from __future__ import annotations

import torch
from torch import Tensor


def prefix_mask(sample: Tensor, step: int = 1) -> Tensor:
    """Masks `(*shape, step · K)` from samples `(*shape, K)`. Category i keeps the first (i + 1) · step channels.

    The sum is in at least fp32: in lower precision a long soft mask would not be monotone.
    """
    if sample.dtype in (torch.float16, torch.bfloat16):
        sample = sample.float()
    mask = sample.flip(-1).cumsum(-1).flip(-1)
    return mask if step == 1 else mask.repeat_interleave(step, dim=-1)
