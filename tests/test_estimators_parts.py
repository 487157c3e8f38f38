"""Estimators on a part of the data for every sample: unbiased, and each control variate sees its own part."""

from __future__ import annotations

import math

import oracles
import pytest
import torch
from oracles import logits_like, seeded

import estimators


class Parts:
    """A function of the sample and of data, which can be cut into parts; it counts what it has seen of them."""

    def __init__(self, data: torch.Tensor, weight: torch.Tensor, seen: list[torch.Tensor]) -> None:
        self.data, self.weight, self.seen = data, weight, seen

    def __call__(self, sample: oracles.Sites) -> torch.Tensor:
        self.seen.append(self.data)
        joint = sample[0][..., 0] * sample[1][..., 1] - 0.5 * sample[1][..., 0]
        return (self.weight * torch.tanh(joint.unsqueeze(-1) + self.data)).mean(-1)

    def part(self, i: int, n: int) -> Parts | None:
        return None if len(self.data) % n else Parts(self.data.tensor_split(n)[i], self.weight, self.seen)


@pytest.mark.parametrize("parts", ["own", "first"])
def test_leave_one_out_on_parts_is_unbiased_for_what_it_sees(parts: str) -> None:
    """Both gradients, against enumeration of the mean over the parts seen; every part once, or the first alone."""
    sizes, rows = (2, 3), 200_000
    logits = logits_like(sizes)
    data = torch.tensor([0.3, -1.0, 0.8, 0.1, -0.4, 1.5])
    estimator = estimators.get("rloo", sizes=sizes, samples=3, parts=parts)
    expanded = tuple(site.expand(rows, -1) for site in logits)
    weight, seen = torch.ones((), requires_grad=True), []
    loss, grads = estimator.estimate(Parts(data, weight, seen), expanded, estimator.draw(expanded, seeded()))
    kept = data if parts == "own" else data[:2]
    assert torch.equal(torch.cat(seen), kept)
    again = torch.ones((), requires_grad=True)
    exact = estimators.get("exact", sizes=sizes).estimate(Parts(kept, again, []), logits, ())
    found = torch.cat([loss.unsqueeze(-1), *grads], -1).double()
    truth = torch.cat([exact.loss.view(1), *exact.grads]).double()
    oracles.check_means(found, truth, parts)
    assert weight.grad is not None and again.grad is not None
    # of the mean over rows the standard error is below 1 / √(3 rows)
    assert float(weight.grad) / rows == pytest.approx(float(again.grad), abs=5.5 / math.sqrt(3 * rows))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rebar", {}),
        ("rebar", {"coupled": True, "tuning": "regression"}),
        ("relax", {"relaxed_objective": True, "coupled": True}),
    ],
)
def test_a_control_variate_on_a_part_is_unbiased_and_sees_that_part(name: str, options: dict[str, object]) -> None:
    """f itself is that of all data; the relaxed evaluations are of the first third."""
    sizes, rows = (2, 3), 100_000
    logits = logits_like(sizes)
    data = torch.tensor([0.3, -1.0, 0.8, 0.1, -0.4, 1.5])
    estimator = oracles.randomise(estimators.get(name, sizes=sizes, part=3, **options)).eval()
    expanded = tuple(site.expand(rows, -1) for site in logits)
    seen: list[torch.Tensor] = []
    objective = Parts(data, torch.ones((), requires_grad=True), seen)
    loss, grads = estimator.estimate(objective, expanded, estimator.draw(expanded, seeded()))
    assert [len(of) for of in seen] == [6, 2]  # z and z̃ are one call
    assert torch.equal(seen[1], data[:2])
    exact = estimators.get("exact", sizes=sizes).estimate(Parts(data, torch.ones(()), []), logits, ())
    found = torch.cat([loss.unsqueeze(-1), *grads], -1).double()
    oracles.check_means(found, torch.cat([exact.loss.view(1), *exact.grads]).double(), name)


def test_parts_that_there_are_not_are_an_error() -> None:
    logits = logits_like((2, 3))
    for name, options in (("rloo", {"parts": "own"}), ("rebar", {"part": 2})):
        estimator = estimators.get(name, sizes=(2, 3), **options)
        for f in (lambda s: s[0][..., 0], Parts(torch.zeros(5), torch.ones(()), [])):
            with pytest.raises(ValueError, match="cut into"):
                estimator.estimate(f, logits, estimator.draw(logits))
    with pytest.raises(ValueError, match="part=2 needs the relaxed objective"):
        estimators.get("relax", sizes=(2, 3), part=2)
    with pytest.raises(ValueError, match="parts must be"):
        estimators.get("rloo", sizes=(2, 3), parts="half")
