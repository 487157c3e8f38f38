"""Uniform, Gumbel and conditional Gumbel draws for categoricals, and one-hot vectors.

Gumbel-max: b = argmax_i (log p_i + G_i) with G_i = −log(−log u_i) has distribution p. Given b, the perturbed
log-probabilities z̃ are distributed as (Tucker et al. 2017, arXiv:1703.07370, App. C; p normalised)

    z̃_b = −log(−log v_b),    z̃_i = −log(−log v_i / p_i − log v_b)  for i ≠ b,

with uniforms v, and the *winner's* v_b in every entry, so that argmax z̃ = b always.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from estimators.sitewise import Stacked, layout_of, stacked, stacks

Sites = Sequence[Tensor]
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Categories(Stacked):
    """Categories, int64 `(*lead, *rows)` per site, which can be converted to one-hot vectors.

    Args:
        stacks: the categories, stacked.
        like: sites of the same sizes, with the dtype of the one-hot vectors.
    """

    def __init__(self, stacks: Iterable[Tensor], like: Stacked) -> None:
        super().__init__(stacks, like.layout)
        self.like = [(stack.shape[-1], stack.dtype) for stack in like.stacks]

    @functools.cached_property
    def corners(self) -> Stacked:
        """The one-hot vectors `(*lead, *rows, K_l)`. Cached: do not write to them."""
        pairs = zip(self.stacks, self.like, strict=True)
        return Stacked((one_hot(index, *kind) for index, kind in pairs), self.layout)


def uniform(logits: Sites, generator: torch.Generator | None = None, lead: Sequence[int] = ()) -> Sites:
    """Uniforms strictly inside (0, 1), `(*lead, *rows, K_l)` per site, in the logits' dtype, at least fp32."""
    sizes = tuple(site.shape[-1] for site in logits)
    rows, layout = logits[0].shape[:-1], layout_of(sizes)
    dtype = logits[0].dtype if logits[0].dtype in (torch.float32, torch.float64) else torch.float32
    info = torch.finfo(dtype)
    shapes = [(*lead, *rows, len(at), sizes[at[0]]) for at in layout]
    counts = [math.prod(shape) for shape in shapes]
    u = torch.rand((sum(counts),), generator=generator, dtype=dtype, device=logits[0].device)
    u = u.clamp_(info.tiny, 1 - info.eps)
    pieces = u.split(counts) if len(counts) > 1 else (u,)
    return Stacked((one.view(shape) for one, shape in zip(pieces, shapes, strict=True)), layout)


def gumbel(u: Tensor) -> Tensor:
    """Standard Gumbel noise from uniforms, elementwise."""
    return torch.log(u).neg_().log_().neg_()


def perturbed(logits: Tensor, u: Tensor) -> Tensor:
    """φ + G, elementwise, with Gumbel noise G from uniforms u."""
    return logits - torch.log(u).neg_().log_()


def conditional_gumbel(log_p: Tensor, index: Tensor, v: Tensor) -> Tensor:
    """z̃ given that category `index` wins, differentiable in log_p.

    Args:
        log_p: normalised log-probabilities `(*lead, *rows, K)`; −inf is allowed.
        index: the winners, int64 `(*lead, *rows)`.
        v: uniforms `(*lead, *rows, K)`.
    """
    log_e = torch.log(v).neg_().log_()  # logarithms of standard exponential variables
    winner = log_e.gather(-1, index.unsqueeze(-1))
    late = log_e - log_p
    # logaddexp(late, winner), but faster; e^{late} itself would overflow in fp32 for p below about 1e-38
    others = torch.maximum(late, winner) + torch.log(1 + torch.exp(-(late - winner).abs()))
    return others.scatter(-1, index.unsqueeze(-1), winner).neg()


def one_hot(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """One-hot `(*shape, size)` from int64 `(*shape)`. Values are not checked: that would wait for the device."""
    zeros = torch.zeros((*index.shape, size), dtype=dtype, device=index.device)
    return zeros.scatter_(-1, index.unsqueeze(-1), 1)  # a comparison takes twice as long; ten times for 160 categories


def gumbel_argmax(logits: Sites, u: Sites) -> Categories:
    """Samples of the categoricals, int64 `(*lead, *rows)` per site.

    fp32 uniforms lie on a grid of 2⁻²⁴. So a category of probability 1e-5 is drawn 0.3 % too rarely, one of 1e-6 3 %
    too rarely, and one of 1e-8 never. The absolute error is below 5e-8. float64 logits use float64 noise.
    """
    # max(-1).indices is faster than argmax
    like = stacked(logits)
    pairs = zip(like.stacks, stacks(u, like.layout), strict=True)
    return Categories((perturbed(site, noise).max(-1).indices for site, noise in pairs), like)


def race(p: Stacked, u: Sites) -> Categories:
    """`gumbel_argmax` of log p: the smallest of the exponential variables (−log u) / p. p need not be normalised.

    p does not underflow for any category that can win.
    """
    pairs = zip(p.stacks, stacks(u, p.layout), strict=True)
    return Categories((smallest(torch.log(noise).neg_().div_(rate)) for rate, noise in pairs), p)


def smallest(x: Tensor) -> Tensor:
    """argmin over the last dimension of non-negative numbers.

    The bits of such numbers, read as integers, have the same order, and a CPU compares integers three times as fast.
    """
    return x.view(_BITS[x.element_size()]).argmin(-1)
