"""Calls that cannot do what is wanted of them say so."""

import pytest
import torch

import estimators


def test_backward_to_logits_that_do_not_require_grad_is_refused() -> None:
    with pytest.raises(ValueError, match="no logits require grad"):
        estimators.get("rloo", sizes=(3,)).backward(lambda s: s[0].sum(-1), (torch.zeros(3),))
