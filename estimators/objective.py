"""What an estimator is given: an objective, which may be any callable, and what else one may know how to do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
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
    """f, and what else an objective may know how to do. Every plain callable is one: it takes the defaults.

    A sample is a tuple of `(*lead, *rows, K_l)` tensors, one-hot or in the simplex. Of an objective that says
    `broadcasts` the leading dimensions may differ between sites, and broadcast against each other. The value has shape
    `(*lead, *rows)`.
    """

    broadcasts: bool = False
    """Whether it wants the sites as they come. By default they come to one leading shape first, as views: a plain
    callable may concatenate them."""

    @abstractmethod
    def __call__(self, sample: Sites, /) -> Tensor:
        """f at a sample whose ∂f/∂sample is wanted; weights inside f train on it."""

    def hard(self, index: Sites, /) -> Tensor:
        """f at the categories `index` (int64) where no ∂f/∂sample is wanted. By default `self(one_hot(index))`."""
        raise NotImplementedError  # one_hot needs the sizes, which `adapt` knows

    def control(self, sample: Sites, /) -> Tensor:
        """The fixed function that a control variate evaluates: the same for every term of one estimate.

        It moves no state, gives no gradient to weights, and can be differentiated twice. By default `self`.
        """
        return self(sample)

    def part(self, i: int, n: int, /) -> Objective | None:
        """The objective on the i-th of n fixed parts of its data, chosen without looking at noise; None: no parts."""
        return None

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        """f at `index`, as `hard` gives it, and the mere values of f at `others`, `(*lead, *rows)`, detached.

        The others give no gradient and move no state. They may differ from `index` in few sites, and what they have in
        common with it need not be computed twice. By default `hard` of each, the others without gradients, which moves
        what state `hard` moves: an objective that has some, or a wrapper of one, brings its own.
        """
        loss = self.hard(index)
        with torch.no_grad():
            return loss, self.hard(others).detach()


def adapt(objective: Callable[[Sites], Tensor], sizes: Sequence[int], dtype: torch.dtype) -> Objective:
    """Any callable, with the defaults of `Objective` for each method that it does not bring itself.

    Args:
        objective: a callable `sample -> (*lead, *rows)`, or an object with some of `Objective`'s methods.
        sizes: K_l of each site.
        dtype: of the one-hot samples that the default `hard` makes.

    Values come in at least fp32: estimators take differences of them. One of another shape than `(*lead, *rows)` is a
    ValueError.
    """

    return _Adapted(objective, tuple(sizes), dtype)


class _Adapted(Objective):
    def __init__(self, objective: Callable[[Sites], Tensor], sizes: tuple[int, ...], dtype: torch.dtype) -> None:
        self.inner = self.objective = objective
        self.sizes, self.dtype = sizes, dtype
        self.broadcasts = getattr(objective, "broadcasts", False)

    def _alike(self, sites: Sites, inner: int = 0) -> tuple[Tensor, ...]:
        """Sites of one leading shape, but for their `inner` last dimensions, unless the objective broadcasts them."""
        sites = tuple(sites)
        leads = {site.shape[: site.dim() - inner] for site in sites}
        if self.broadcasts or len(leads) == 1:
            return sites
        lead = torch.broadcast_shapes(*leads)
        return tuple(site.expand(*lead, *site.shape[site.dim() - inner :]) for site in sites)

    def _own(self, name: str) -> Any:
        method = getattr(self.objective, name, None)
        return None if getattr(method, "__func__", None) is getattr(Objective, name) else method

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
    """An objective around another, to which it hands everything on; a subclass changes what it is for.

    Args:
        inner: the other, with every method: see `adapt`.
    """

    broadcasts = True

    def __init__(self, inner: Objective) -> None:
        self.inner = inner

    def around_another(self, piece: Objective) -> Wrapper:
        """The same around a part of the data of the inner one."""
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


def at_least_fp32(site: Tensor) -> Tensor:
    return site if site.dtype in (torch.float32, torch.float64) else site.float()


def _value(value: Tensor, sites: Sites, inner: int = 0) -> Tensor:
    """The value of an objective, if it has the shape of the sites but for their `inner` last dimensions."""
    if isinstance(sites, Stacked):  # the shapes of the sites without a view of each
        sites, inner = sites.stacks, inner + 1
    shapes = {site.shape[: site.dim() - inner] for site in sites}
    shape = shapes.pop() if len(shapes) == 1 else torch.broadcast_shapes(*shapes)
    if value.shape != shape:
        raise ValueError(f"the objective must give {tuple(shape)}, one value per sample, got {tuple(value.shape)}")
    return at_least_fp32(value)
