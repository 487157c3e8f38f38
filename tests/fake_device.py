"""Training steps on a device that is not there: a program of its own, because a device once registered stays.

Fake tensors know their device, so that an operation on tensors of two devices raises, and they have no values, so that
to read one raises. On a CUDA device they cannot be backpropagated without CUDA; PrivateUse1, the place that torch keeps
for a backend of somebody else's, can be. What is copied from the host, for which a device would be waited for as well,
is written down with the line that does it. Prints JSON: for each estimator and task what happened, see `report`.

Generators of a device cannot be made without it: those of the trainer are CPU generators here, and that every random
draw on the device takes one of them is checked instead.
"""

import contextlib
import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import estimators
from suites import labels
from vmo.config import WideResNetConfig
from vmo.data import Dataset, Split
from vmo.recipe import Recipe
from vmo.space import TASKS, ArchitectureDistribution, Space, normalised_penalty
from vmo.target import Target
from vmo.train import Trainer
from vmo.wrn import WideResNet

NAME = "elsewhere"
CONFIG = WideResNetConfig(10, 1, 10, 1, heads="all")
OURS = Path(estimators.__file__).parents[1]


class Lifted(TorchFunctionMode):
    """Tensors of Python numbers are made on the host and then copied, as torch does it for a device that it knows."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        of_numbers = func is torch.tensor or (func is torch.as_tensor and not isinstance(args[0], Tensor))
        if func is Tensor.new_tensor:
            like, *args = args
            func, of_numbers = torch.tensor, True
            kwargs = {"dtype": like.dtype, "device": like.device} | kwargs
        if not of_numbers:
            return func(*args, **kwargs)
        device = torch.device(kwargs.pop("device", None) or torch.empty(0).device)
        made = func(*args, **kwargs, device="cpu")
        if device.type == "cpu":
            return made
        made.constant = None  # of known value it would be copied for real
        return made.to(device)


class Watch(TorchDispatchMode):
    """Writes down what would wait for the device, and draws that no given generator decides."""

    def __init__(self, seeds: set[int]) -> None:
        super().__init__()
        self.seeds = seeds
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = kwargs.get("device")
        if func is torch.ops.aten._to_copy.default and target is not None and target.type != args[0].device.type:
            self._note("copies between host and device")
        if torch.Tag.nondeterministic_seeded in func.tags:
            generator = kwargs.get("generator")  # not the object that was given, but of its seed
            if generator is None or generator.initial_seed() not in self.seeds:
                self._note("draws without a generator of the trainer")
        return func(*args, **kwargs)

    def _note(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if ours(frame.filename)]
        self.seen.append(f"{what}: {frames[-1].filename.removeprefix(str(OURS))}:{frames[-1].lineno}")


def ours(path: str) -> bool:
    """Whether it is a file of the packages under test."""
    return any(path.startswith(str(OURS / package)) for package in ("estimators", "vmo"))


@contextlib.contextmanager
def device() -> Iterator[None]:
    """Tensors are fake, and generators those of the CPU."""
    made = torch.Generator
    with FakeTensorMode(), mock.patch("torch.Generator", side_effect=lambda _=None: made()):
        yield


FORMS = (
    "rebar[coupled=true,tuning=regression,every=2]",
    "relax[relaxed_objective=true,coupled=true,tuning=regression]",
    "rloo[parts=own]",
    "rloo[parts=first]",
)
"""Forms with other passes than their defaults."""


def trainer(name: str | None, task: str, recipe: Recipe, target: bool) -> Trainer:
    """A run of an estimator, or of none, on images that show nothing."""
    split = Split(torch.zeros(64, 1, 6, 6, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64))
    data = Dataset("blank", split, split, 10, (127.5,), (74.0,), 1, True)
    if name is None:
        return Trainer(WideResNet(CONFIG), data, recipe, seed=1000)
    space = Space(task, CONFIG.widths, 16)
    penalty = normalised_penalty(space, 0.3, CONFIG.macs(6))
    return Trainer(
        WideResNet(CONFIG),
        data,
        recipe,
        distribution=ArchitectureDistribution(space),
        estimator=labels.parse(name).make(space.sizes),
        penalty=Target(penalty, 0.6) if target else penalty,
        weight_estimator=estimators.get("reinforce", sizes=space.sizes, baseline="none") if target else None,
        seed=1000,
    )


def report(name: str | None, task: str, recipe: Recipe, target: bool = False) -> list[str]:
    """What is wrong with two training steps: nothing, an error, or what would have waited."""
    try:
        with device():
            with torch.device(NAME), Lifted():
                run = trainer(name, task, recipe, target)
            with (
                Lifted(),
                Watch({run.order.initial_seed(), run.augmentation.initial_seed(), run.noise.initial_seed()}) as watch,
            ):
                for _, minibatch in zip(range(2), run.minibatches(), strict=False):
                    loss = run.step(*minibatch)
                    run._loss += loss
            assert loss.device.type == NAME
            return sorted(set(watch.seen))
    except ValueError as error:
        if any(word in str(error) for word in ("binary", "sites to enumerate")):
            return ["skip"]
        raise
    except Exception as error:
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if ours(frame.filename)][-1]
        return [f"{type(error).__name__} at {where.filename}:{where.lineno}: {str(error)[:300]}"]


def main(names: list[str]) -> None:
    """These estimators, or all, on every task, and ways to train that are none of an estimator's."""
    _setup_privateuseone_for_python_backend(NAME)
    getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]  # autocast, switched off, asks for it
    short = Recipe(epochs=2, batch_size=16)
    found = {f"{name}-{task}": report(name, task, short) for name in names or estimators.available() for task in TASKS}
    found |= {f"{name}-width": report(name, "width", short) for name in (() if names else FORMS)}
    found["plain-"] = report(None, "width", short)
    found["target-joint"] = report("rloo", "joint", short, target=True)
    found["groups-width"] = report("rloo", "width", Recipe(epochs=2, batch_size=16, groups=2, phi_optimizer="sgd"))
    found["fixed-width"] = report("reinforce", "width", Recipe(epochs=2, batch_size=16, learn=False))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
