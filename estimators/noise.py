"""Uniform, Gumbel and conditional-Gumbel draws for categoricals, and one-hot vectors.

Gumbel-max: b = argmax_i (log p_i + G_i) with G_i = −log(−log u_i) has distribution p. Given b, the perturbed
log-probabilities z̃ are distributed as (Tucker et al. 2017, arXiv:1703.07370, App. C; p normalised)

    z̃_b = −log(−log v_b),    z̃_i = −log(−log v_i / p_i − log v_b)  for i ≠ b,

with the *winner's* v_b in every entry, so that argmax z̃ = b always.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.sitewise import Stacked, layout_of, sitewise

Sites = Sequence[Tensor]


def uniform(logits: Sites, generator: torch.Generator | None = None, lead: Sequence[int] = ()) -> Sites:
    """Uniforms strictly inside (0, 1), `(*lead, *rows, K_l)` per site, in the logits' dtype but at least fp32."""
    sizes = tuple(site.shape[-1] for site in logits)
    rows, layout = logits[0].shape[:-1], layout_of(sizes)
    dtype = logits[0].dtype if logits[0].dtype in (torch.float32, torch.float64) else torch.float32
    info = torch.finfo(dtype)
    shapes = [(*lead, *rows, len(at), sizes[at[0]]) for at in layout]
    counts = [math.prod(shape) for shape in shapes]
    u = torch.rand((sum(counts),), generator=generator, dtype=dtype, device=logits[0].device)
    u = u.clamp_(info.tiny, 1 - info.eps)
    return Stacked((one.view(shape) for one, shape in zip(u.split(counts), shapes, strict=True)), layout)


def gumbel(u: Tensor) -> Tensor:
    """Standard Gumbel noise from uniforms, elementwise."""
    return torch.log(u).neg_().log_().neg_()


def conditional_gumbel(log_p: Tensor, index: Tensor, v: Tensor) -> Tensor:
    """z̃ given that category `index` wins, differentiable in log_p.

    Args:
        log_p: normalised log-probabilities `(*lead, *rows, K)`; −inf is allowed.
        index: the winners, int64 `(*lead, *rows)`.
        v: uniforms `(*lead, *rows, K)`.
    """
    log_e = torch.log(-torch.log(v))  # log of unit exponentials
    winner = log_e.gather(-1, index.unsqueeze(-1))
    # logaddexp, because e^{log_e − log_p} overflows in fp32 from p ≈ 1e-38 on
    others = -torch.logaddexp(log_e - log_p, winner.expand_as(log_e))
    return torch.where(one_hot(index, log_p.shape[-1], torch.bool), -winner, others)


def one_hot(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """`(*shape)` int64 to one-hot `(*shape, size)`, without the check of values that would wait for the device."""
    return (index.unsqueeze(-1) == torch.arange(size, device=index.device)).to(dtype)  # half the time of a scatter


def gumbel_argmax(logits: Sites, u: Sites) -> Sites:
    """Samples of the categoricals, int64 `(*lead, *rows)` per site.

    fp32 uniforms lie on a grid of 2⁻²⁴, so a category of probability 1e-5 is drawn 0.3 % too rarely, one of 1e-6 3 %
    and one of 1e-8 never: an absolute error below 5e-8. float64 logits bring float64 noise.
    """
    # max is faster than argmax
    return sitewise(lambda site, noise: (site + gumbel(noise)).max(-1).indices, logits, u)
