"""What `compare` refuses, and what it survives: objectives of wrong kinds, noise, failing estimators."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from comparing import LOGITS, SIZES, Encoder, cubic, statuses
from torch import Tensor, nn

import estimators
from estimators import Estimator
from suites import compare
from suites.problem import Problem


def test_without_slopes_biased_estimators_are_not_applicable_and_say_why() -> None:
    table = torch.arange(6.0).reshape(2, 3) ** 2

    def looked_up(sample: Sequence[Tensor]) -> Tensor:
        return table[sample[0].argmax(-1), sample[1].argmax(-1)]

    names = ["reinmax", "averaged", "rloo", "double_cv"]
    found = compare(looked_up, LOGITS, estimators=names, seconds=1.5, quiet=True)
    assert [found.measured[label].status[:14] for label in names] == ["not applicable", "not applicable", "ok", "ok"]
    assert found.measured["double_cv"].slopes == "yes, f has none"
    assert "reinmax, averaged: not applicable: it needs ∂f/∂sample, and f has none" in str(found)
    assert "f has no slope" in str(found)


def test_nothing_that_was_there_before_is_disturbed() -> None:
    model = Encoder()
    logits = model.logits(model.x[:8])
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 7.0)
    own = estimators.get("nvil", sizes=SIZES)
    before, state = copy.deepcopy(own.state_dict()), torch.random.get_rng_state()
    weights = copy.deepcopy(model.state_dict())
    compare(model.f(model.x[:8]), logits, estimators=["rloo", own], weights=model.parameters(), seconds=1, quiet=True)
    assert all(bool((weight.grad == 7).all()) for weight in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert own.training
    assert all(torch.equal(own.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    sum(site.sum() for site in logits).backward()  # the graph of the logits is still there


def test_what_cannot_work_is_refused_in_one_line() -> None:
    model = Encoder()
    with pytest.raises(ValueError, match="give weights="):
        compare(model.minibatch, fresh=True, seconds=1, quiet=True)
    with pytest.raises(ValueError, match="logits are missing"):
        compare(cubic, seconds=1, quiet=True)
    with pytest.raises(ValueError, match="one value per sample"):
        compare(lambda sample: sample[0].sum(), LOGITS, seconds=1, quiet=True)
    with pytest.raises(ValueError, match="did you mean 'rloo'"):
        compare(cubic, LOGITS, estimators=["rlo"], seconds=1, quiet=True)
    with pytest.raises(ValueError, match="named twice"):
        compare(cubic, LOGITS, estimators=["rloo", "rloo[samples=2]"], seconds=1, quiet=True)
    with pytest.raises(ValueError, match="seconds must be a number greater than 0"):
        compare(cubic, LOGITS, seconds=0, quiet=True)
    with pytest.raises(ValueError, match="write \\(logits,\\)"):
        compare(cubic, LOGITS[0], seconds=1, quiet=True)  # type: ignore[arg-type]


def test_logits_of_a_wrong_kind_are_refused_by_all_who_take_them() -> None:
    wrong: list[tuple[object, str]] = [
        ([], "an empty sequence"),
        ([[0.0, 0.0], [0.0, 0.0, 0.0]], "an object of type list"),
        ([torch.zeros(2, dtype=torch.int64), LOGITS[1]], "a tensor of int64"),
        ([torch.tensor(0.0), LOGITS[1]], "at least one row and one category"),
        ([torch.zeros(0, 2), torch.zeros(0, 3)], "at least one row and one category"),
        ([torch.zeros(4, 2), torch.zeros(5, 3)], "same rows"),
        ([LOGITS[0], torch.zeros(3, device="meta")], "have one device, got cpu, meta"),
    ]
    for logits, message in wrong:
        for taken in (Problem, estimators.pick, lambda f, at: estimators.surrogate("rloo", f, at)):
            with pytest.raises(ValueError, match=message):
                taken(cubic, logits)  # type: ignore[arg-type]
    for taken in (Problem, estimators.pick, estimators.get("rloo", sizes=SIZES).backward):
        with pytest.raises(ValueError, match="write \\(logits,\\)"):
            taken(cubic, LOGITS[0])  # type: ignore[arg-type]
    assert Problem(cubic, iter(LOGITS)).sizes == SIZES  # type: ignore[arg-type]


def test_arguments_of_a_wrong_kind_are_refused_in_one_line() -> None:
    model = nn.Linear(2, 2)
    for weights in (model, model.weight, "weights", model.state_dict(), model.named_parameters()):
        with pytest.raises(ValueError, match=r"such as model\.parameters"):
            Problem(cubic, LOGITS, weights=weights)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none of the weights requires a gradient"):
        Problem(cubic, LOGITS, weights=[torch.zeros(3)])
    for wanted in ("rloo", estimators.get("rloo", sizes=SIZES)):
        with pytest.raises(ValueError, match=r"got .*loo.* alone"):
            compare(cubic, LOGITS, estimators=wanted, quiet=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an estimator is a label"):
        compare(cubic, LOGITS, estimators=[Broken], quiet=True)  # type: ignore[list-item]
    for seconds in ("10", float("inf"), float("nan")):
        with pytest.raises(ValueError, match="seconds must be a number"):
            compare(cubic, LOGITS, seconds=seconds, quiet=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must give a tensor, one value per sample, got an object of type float"):
        Problem(lambda sample: 1.0, LOGITS)
    with pytest.raises(ValueError, match="NaN or infinity"):
        Problem(lambda sample: cubic(sample) * torch.nan, LOGITS)
    with pytest.raises(ValueError, match="limit is 16,777,216"):
        estimators.get("sweep", sizes=(5000,))


def test_a_function_of_the_next_minibatch_is_told_from_a_function_of_a_sample() -> None:
    with pytest.raises(ValueError, match="set fresh=True"):
        Problem(lambda: cubic, LOGITS)
    with pytest.raises(ValueError, match="this one needs an argument"):
        Problem(cubic, LOGITS, fresh=True)
    batches = iter([cubic] * 2)
    problem = Problem(lambda: next(batches), LOGITS, fresh=True)
    problem.by_hand()
    with pytest.raises(ValueError, match="the minibatches have ended"):
        problem.by_hand()


def test_a_graph_from_outside_of_f_is_named_as_the_reason() -> None:
    scale = torch.ones(2, requires_grad=True)
    square = scale.square()
    with pytest.raises(ValueError, match="made outside of f"):
        compare(lambda sample: cubic(sample) * square[0], LOGITS, estimators=["rloo"], seconds=1, quiet=True)


def test_noise_in_f_and_a_mixture_of_samples_are_said_to_the_reader() -> None:
    torch.manual_seed(0)
    rows = [site.expand(8, -1) for site in LOGITS]
    layer = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def noisy(sample: Sequence[Tensor]) -> Tensor:
        return layer(torch.cat(tuple(sample), -1))[..., 0]  # type: ignore[no-any-return]

    found = compare(noisy, rows, estimators=["exact", "rloo"], seconds=1, quiet=True)
    assert "f is random" in str(found)
    assert found.truth.startswith("estimates by ")  # one enumeration would be a random number
    layer.eval()
    assert not Problem(noisy, rows).random

    norm = nn.BatchNorm1d(1)

    def mixed(sample: Sequence[Tensor]) -> Tensor:
        value = cubic(sample)
        return norm(value.reshape(-1, 1)).reshape(value.shape)  # type: ignore[no-any-return]

    problem = Problem(mixed, rows)
    assert problem.mixes and not problem.random and not problem.together
    assert "batch norm" in str(compare(mixed, rows, estimators=["rloo"], seconds=1, quiet=True))
    norm.eval()
    assert not Problem(mixed, rows).mixes


class Broken(Estimator):
    unbiased = True

    def _estimate(self, objective, logits, noise):  # type: ignore[no-untyped-def]
        raise RuntimeError("this estimator\nis broken")


class Infinite(Estimator):
    unbiased = False

    def _estimate(self, objective, logits, noise):  # type: ignore[no-untyped-def]
        loss = objective.hard(tuple(site.argmax(-1) for site in logits))
        return estimators.Estimate(loss, tuple(torch.full_like(site, torch.inf) for site in logits))


def test_an_estimator_that_fails_ends_itself_and_not_the_comparison() -> None:
    wanted = {"broken": Broken(SIZES), "infinite": Infinite(SIZES), "rloo": "rloo"}
    found = compare(cubic, LOGITS, estimators=wanted, seconds=1, quiet=True)
    assert found.measured["broken"].status == "failed: RuntimeError: this estimator is broken"
    assert "not finite" in found.measured["infinite"].status
    assert found.best() == "rloo"
    with pytest.raises(ValueError, match="could be measured: failed: RuntimeError: this estimator is broken"):
        compare(cubic, LOGITS, estimators={"broken": Broken(SIZES)}, seconds=1, quiet=True)


def test_a_graph_from_outside_f_is_refused_in_one_line() -> None:
    outside = nn.Linear(2, 5)(torch.ones(2)) ** 2
    with pytest.raises(ValueError, match=r"compute the tensor inside f, or detach it$"):
        compare(lambda sample: torch.cat(tuple(sample), -1) @ outside, LOGITS, seconds=0.3, quiet=True)


def test_an_objective_that_draws_is_not_enumerated() -> None:
    def noisy(sample: Sequence[Tensor]) -> Tensor:
        return cubic(sample) + sample[1][..., 0] * torch.randn(sample[0].shape[:-1])

    found = compare(noisy, LOGITS, estimators=["rloo", "straight_through"], seconds=1, quiet=True)
    assert found.truth.startswith("estimates by rloo")
    mixed = Problem(lambda sample: cubic(sample) + sample[0][..., 0].mean(), LOGITS)
    assert not mixed.steady
    assert Problem(cubic, LOGITS).steady


def test_what_an_estimator_knew_of_another_objective_does_not_count() -> None:
    own = estimators.get("reinmax", sizes=SIZES)
    with pytest.warns(UserWarning, match="f has no slope"):
        own.estimate(lambda sample: sample[0].argmax(-1) * 1.0, LOGITS, own.draw(LOGITS))
    before = dict(own.blind)
    found = compare(cubic, LOGITS, estimators={"own": own, "rloo": "rloo"}, seconds=0.3, quiet=True)
    assert found.measured["own"].slopes == "yes"
    assert statuses(found)["own"] == "ok"
    assert own.blind == before


def test_an_objective_that_ignores_a_categorical_is_measured_all_the_same() -> None:
    found = compare(lambda sample: sample[0][..., 0] ** 2, LOGITS, estimators=["reinmax"], seconds=0.3, quiet=True)
    assert statuses(found) == {"reinmax": "ok"}
    assert found.measured["reinmax"].slopes == "yes, f has some"


def test_nothing_is_left_behind_where_gradients_are_switched_off() -> None:
    weight, logits = nn.Parameter(torch.ones(2)), nn.Parameter(torch.tensor([0.3, -0.2]))
    with torch.no_grad():
        found = compare(
            lambda sample: (sample[0] @ weight + sample[0][..., 0]) ** 2,
            [logits],
            estimators=["rloo"],
            weights=[weight, logits],
            seconds=0.3,
            quiet=True,
        )
    assert weight.grad is None
    assert logits.grad is None
    gradient_sq = found.frame.set_index("part")["gradient_sq"]
    p = torch.softmax(logits.detach(), -1)
    assert gradient_sq["weights"] == pytest.approx(float(((p * torch.tensor([4.0, 2.0])) ** 2).sum()), rel=1e-4)
