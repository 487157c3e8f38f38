"""The objective that an estimator receives: any callable, with optional further methods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from estimators.noise import Categories, one_hot
from estimators.sitewise import Stacked

Sites = Sequence[Tensor]
"""One tensor per site: logits `(*rows, K_l)`, a sample `(*lead, *rows, K_l)` or an index `(*lead, *rows)`.

An objective is always given a tuple.
"""


class Objective(Protocol):
    """f and its optional methods. Every plain callable is an objective and gets the defaults below.

    A sample is a tuple of `(*lead, *rows, K_l)` tensors, one-hot or in the simplex. If `broadcasts` is set, the leading
    dimensions may differ between sites and broadcast against each other. The value has shape `(*lead, *rows)`.
    """

    broadcasts: bool = False
    """Whether leading dimensions may differ between sites. By default all sites are expanded (as views) to one leading
    shape, so that a plain callable may concatenate them."""

    @abstractmethod
    def __call__(self, sample: Sites, /) -> Tensor:
        """f at a sample, differentiable in the sample; weights inside f train on it."""

    def hard(self, index: Sites, /) -> Tensor:
        """f at the categories `index` (int64), when ∂f/∂sample is not needed. By default `self(one_hot(index))`."""
        raise NotImplementedError  # one_hot needs the sizes, which `adapt` knows

    def control(self, sample: Sites, /) -> Tensor:
        """The function that control variates evaluate. It is the same function for every term of one estimate.

        It changes no state, gives weights no gradient and can be differentiated twice. By default `self`.
        """
        return self(sample)

    def part(self, i: int, n: int, /) -> Objective | None:
        """The objective on the i-th of n parts of its data; the split must not depend on the noise. None: no parts."""
        return None

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        """f at `index`, as `hard` returns it, and the detached values of f at `others`, `(*lead, *rows)`.

        The others give no gradient and change no state. They may differ from `index` in a few sites only; an objective
        may then compute the common part once. By default `hard` is called for each, without gradients for the others.
        That changes state if `hard` does, so an objective with state, or a wrapper of one, implements its own method.
        """
        loss = self.hard(index)
        with torch.no_grad():
            return loss, self.hard(others).detach()


def adapt(objective: Callable[[Sites], Tensor], sizes: Sequence[int], dtype: torch.dtype) -> Objective:
    """Any callable, with the defaults of `Objective` for each method that it lacks.

    Values are returned in at least fp32, because estimators take differences of them. A value that does not have the
    shape `(*lead, *rows)` raises a ValueError.

    Args:
        objective: a callable `sample -> (*lead, *rows)`, or an object with some of `Objective`'s methods.
        sizes: K_l of each site.
        dtype: of the one-hot samples that the default `hard` makes.
    """

    return _Adapted(objective, tuple(sizes), dtype)


class _Adapted(Objective):
    def __init__(self, objective: Callable[[Sites], Tensor], sizes: tuple[int, ...], dtype: torch.dtype) -> None:
        self.inner = self.objective = objective
        self.sizes, self.dtype = sizes, dtype
        self.broadcasts = getattr(objective, "broadcasts", False)

    def _alike(self, sites: Sites, inner: int = 0) -> tuple[Tensor, ...]:
        """The sites, expanded to one shape except for the last `inner` dimensions, unless the objective broadcasts."""
        sites = tuple(sites)
        leads = {site.shape[: site.dim() - inner] for site in sites}
        if self.broadcasts or len(leads) == 1:
            return sites
        lead = torch.broadcast_shapes(*leads)
        return tuple(site.expand(*lead, *site.shape[site.dim() - inner :]) for site in sites)

    def _own(self, name: str) -> Any:
        method = getattr(self.objective, name, None)
        if not callable(method) or getattr(method, "__func__", None) is getattr(Objective, name):
            return None
        return method

    def __call__(self, sample: Sites, /) -> Tensor:
        return _value(self.objective(self._alike(sample, 1)), sample, 1)

    def hard(self, index: Sites, /) -> Tensor:
        if (own := self._own("hard")) is not None:
            return _value(own(self._alike(index)), index)
        if isinstance(index, Categories):
            return self(index.corners)
        return self(tuple(one_hot(i, size, self.dtype) for i, size in zip(index, self.sizes, strict=True)))

    def control(self, sample: Sites, /) -> Tensor:
        return _value((self._own("control") or self.objective)(self._alike(sample, 1)), sample, 1)

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        if (own := self._own("around")) is None:
            return super().around(index, others)
        loss, values = own(self._alike(index), self._alike(others))
        return _value(loss, index), _value(values, others)

    def part(self, i: int, n: int, /) -> Objective | None:
        own = self._own("part")
        piece = None if own is None else own(i, n)
        return None if piece is None else adapt(piece, self.sizes, self.dtype)


class Wrapper(Objective):
    """An objective that passes every call on to another one; subclasses override what they change.

    Args:
        inner: the other objective, with every method, see `adapt`.
    """

    broadcasts = True

    def __init__(self, inner: Objective) -> None:
        self.inner = inner

    def around_another(self, piece: Objective) -> Wrapper:
        """The same wrapper around a part of the inner objective's data."""
        return type(self)(piece)

    def __call__(self, sample: Sites, /) -> Tensor:
        return self.inner(sample)

    def hard(self, index: Sites, /) -> Tensor:
        return self.inner.hard(index)

    def control(self, sample: Sites, /) -> Tensor:
        return self.inner.control(sample)

    def part(self, i: int, n: int, /) -> Objective | None:
        piece = self.inner.part(i, n)
        return None if piece is None else self.around_another(piece)

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        return self.inner.around(index, others)


def sites_of(logits: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """The logits as a tuple. ValueError unless they are floating-point tensors of equal rows, dtype and device."""
    if isinstance(logits, Tensor):
        raise ValueError("logits must be a sequence of tensors, one (*rows, K) per categorical: write (logits,)")
    sites = tuple(logits) if isinstance(logits, Iterable) else ()
    if not sites:
        raise ValueError(f"logits must be one tensor (*rows, K) per categorical, got {_kind(logits)}")
    for site in sites:
        if not isinstance(site, Tensor) or not site.is_floating_point():
            raise ValueError(f"logits must be floating-point tensors (*rows, K), got {_kind(site)}")
    shapes = [tuple(site.shape) for site in sites]
    if any(not shape or 0 in shape for shape in shapes):
        raise ValueError(f"logits must be (*rows, K) with at least one row and one category, got shapes {shapes}")
    if len({shape[:-1] for shape in shapes}) > 1:
        raise ValueError(f"the logits of every categorical must have the same rows, got shapes {shapes}")
    for what in ("device", "dtype"):
        if len(several := {str(getattr(site, what)) for site in sites}) > 1:
            raise ValueError(f"all logits must have one {what}, got {', '.join(sorted(several))}")
    return sites


def _kind(given: object) -> str:
    """What somebody gave in place of tensors, in a word or two."""
    if isinstance(given, Tensor):
        return f"a tensor of {given.dtype}".replace("torch.", "")
    if isinstance(given, list | tuple) and not given:
        return "an empty sequence"
    return f"an object of type {type(given).__name__}"


def at_least_fp32(site: Tensor) -> Tensor:
    return site if site.dtype in (torch.float32, torch.float64) else site.float()


def _value(value: Tensor, sites: Sites, inner: int = 0) -> Tensor:
    """The objective's value in at least fp32. ValueError unless its shape is the sites' without `inner` dimensions."""
    if isinstance(sites, Stacked):  # shapes without making a view of each site
        sites, inner = sites.stacks, inner + 1
    shapes = {site.shape[: site.dim() - inner] for site in sites}
    shape = shapes.pop() if len(shapes) == 1 else torch.broadcast_shapes(*shapes)
    if not isinstance(value, Tensor):
        raise ValueError(f"the objective must give a tensor, one value per sample, got {_kind(value)}")
    if value.shape != shape:
        raise ValueError(
            f"the objective must give {tuple(shape)}, one value per sample, got {tuple(value.shape)}: "
            "keep every dimension of the sample but its last"
        )
    return at_least_fp32(value)
