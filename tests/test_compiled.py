"""Compiled training: the same numbers as eager, no graph breaks, and double backward where it is eager."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_train import CONFIG, QUICK, make
from torch import nn

from suites import presets
from vmo.compiled import CompiledObjective
from vmo.space import TASKS
from vmo.train import Trainer
from vmo.wrn import WideResNet

COMPILED = replace(QUICK, compile=True)
BACKEND = {"backend": "aot_eager", "fullgraph": True}  # traced like any other, and not handed to a C++ compiler


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Graph breaks are errors, and graphs are run as they were traced."""
    if "inductor" not in request.node.name:
        original = nn.Module.compile
        monkeypatch.setattr(WideResNet, "compile", lambda self, **options: original(self, **options, **BACKEND))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pair(name: str | None, task: str = "joint", **options: Any) -> tuple[Trainer, Trainer]:
    """The same run twice, in double precision and on masks: eager and compiled."""

    class Masked(Trainer):
        def objective(self, *minibatch: Any) -> Any:
            objective = super().objective(*minibatch)
            objective.slicing = False
            return objective

    runs = (make(name, task, QUICK, kind=Masked, **options), make(name, task, COMPILED, **options))
    for trainer in runs:
        trainer.network.double()
    return runs


def check_equal(eager: Trainer, compiled: Trainer, steps: int = 3) -> None:
    """Losses, gradients of weights and of q, and running statistics, step by step."""
    for _ in range(steps):
        minibatches = [next(trainer.minibatches()) for trainer in (eager, compiled)]
        losses = [t.step(i.double(), y) for t, (i, y) in zip((eager, compiled), minibatches, strict=True)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=1e-8)
        modules = [(t.network, t.distribution, t.estimator) for t in (eager, compiled)]
        for one, other in zip(*modules, strict=True):
            if one is None or other is None:
                continue
            for (what, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
                assert p.grad is not None and q.grad is not None, what
                torch.testing.assert_close(
                    q.grad, p.grad, rtol=1e-4, atol=1e-7, msg=lambda text, what=what: f"{what}: {text}"
                )
        for a, b in zip(eager.network.buffers(), compiled.network.buffers(), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["rloo", "straight_through"])
def test_compiled_steps_are_eager_steps(name: str) -> None:
    check_equal(*pair(name), steps=2)


def test_plain_steps_too() -> None:
    check_equal(*pair(None))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["reinforce", "rloo", "concrete", "straight_through"])
def test_compiled_steps_are_eager_steps_on_every_task(name: str, task: str) -> None:
    check_equal(*pair(name, task))


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_what_differentiates_twice_runs_eagerly(name: str) -> None:
    options: dict[str, Any] = {"relaxed_objective": True} if name == "relax" else {}
    eager, compiled = pair(name, "width", **options)
    check_equal(eager, compiled, steps=1)
    assert compiled.estimator is not None and compiled.estimator.log_temperature.grad != 0  # type: ignore[operator]


def test_the_network_is_compiled_and_its_state_is_named_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setitem(BACKEND, "backend", backend)
    trainer = make("reinforce", "width", COMPILED)
    for _ in range(2):
        trainer.step(*next(trainer.minibatches()))
    assert len(graphs) == 1  # no break, and made once
    assert list(trainer.network.state_dict()) == list(WideResNet(CONFIG).state_dict())
    eager = make("reinforce", "width")
    eager.restore(trainer.snapshot())
    assert torch.equal(eager.network.stem.weight, trainer.network.stem.weight)
    twin = copy.deepcopy(trainer.network)  # as what is deployed is made of it
    assert torch.equal(twin.stem.weight, trainer.network.stem.weight)


def test_a_part_of_the_minibatch_is_compiled_as_the_whole_is() -> None:
    trainer = make("rebar", "width", COMPILED)
    images, labels = next(trainer.minibatches())
    part = trainer.objective(images, labels).part(1, 2)
    assert isinstance(part, CompiledObjective) and not part.slicing
    assert torch.equal(part.labels, labels[8:])
    assert trainer.objective(images[:15], labels[:15]).part(0, 2) is None


@pytest.mark.slow
def test_inductor_trains_as_eager_does() -> None:
    check_equal(*pair("rloo", "width"), steps=2)


def test_the_preset_compiles_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert presets.resolve("paper").groups["train"].compile is there  # type: ignore[attr-defined]
        asked = presets.resolve("paper", ["train.compile=true"])
        assert asked.groups["train"].compile  # type: ignore[attr-defined]
