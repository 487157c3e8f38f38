"""A distribution of torch whose `rsample` carries an estimator's gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import OneHotCategorical

from estimators.base import Estimator
from estimators.dropin import pathwise, sample

_ONE = Size()


class OneHot(OneHotCategorical):
    """`torch.distributions.OneHotCategorical` with `rsample`, as in `OneHot("reinmax", logits=logits)`.

    `rsample` is `estimators.sample` at the logits that the distribution has normalised. It is one-hot, and `logits` or
    `probs` receive the gradient of the estimator. Everything else is that of `OneHotCategorical`. `sample` has no
    gradient and always draws from q. (`rsample` of `straight_through` does not, if its `forward_temperature` is not 1.)
    Noise comes from torch's global generator.

    Args:
        estimator: the name of an estimator that is `pathwise` and gives hard samples, or such an estimator, made for
            `(K,)`.
        probs: `(*batch, K)`, or None if logits are given.
        logits: `(*batch, K)`, or None if probs are given.
        validate_args: see `torch.distributions.Distribution`.
        **options: options of the estimator, if it is given by name.

    Raises:
        ValueError: the estimator is not pathwise, gives soft samples or is made for other sizes, or `estimators.get` or
            `OneHotCategorical` refuses the arguments.
    """

    has_rsample = True

    def __init__(
        self,
        estimator: str | Estimator,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        validate_args: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(probs, logits, validate_args)
        self.estimator = pathwise(estimator, (self.logits,), options)
        if self.estimator.relaxed:
            raise ValueError(f"{type(self.estimator).__name__} gives soft samples, and those of OneHot are one-hot")
        if self.estimator.sizes != tuple(self.event_shape):
            raise ValueError(f"the estimator is made for sizes {self.estimator.sizes}, got K = {self.event_shape[-1]}")

    def expand(self, batch_shape: Any, _instance: Any = None) -> OneHot:
        new: OneHot = self._get_checked_instance(OneHot, _instance)
        new.estimator = self.estimator
        super().expand(batch_shape, new)
        return new

    def rsample(self, sample_shape: Any = _ONE) -> Tensor:
        """`(*sample_shape, *batch, K)`."""
        logits: Tensor = self.logits
        return sample(self.estimator, logits.expand(torch.Size(self._extended_shape(sample_shape))))
